"""The network, knowing nothing of parallelism."""
