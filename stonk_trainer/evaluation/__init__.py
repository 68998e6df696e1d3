"""Judging forecasts: metrics with intervals and baselines beside them."""
