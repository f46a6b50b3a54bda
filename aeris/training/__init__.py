"""The training loop, its checkpoints, averages, schedules and logbook."""
