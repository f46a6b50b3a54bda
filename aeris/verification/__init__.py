"""Scores of ensemble forecasts, on xarray and without torch."""
