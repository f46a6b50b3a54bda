"""From a checkpoint to an archive of ensemble forecasts."""
