"""Pictures of forecasts and scores, without torch."""
