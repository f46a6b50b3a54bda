"""From a network to a distribution: noise, the TrigFlow objective and its solvers."""
