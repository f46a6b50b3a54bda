"""Engines on the nodes of a machine, and the notebook that drives them: ipyparallel hosts the ranks of a layout."""
