"""Fields in, samples out: channels, grids, sources, the simulated planet, statistics and the training store."""
