"""Forecasts of a trained model, on the command line, from Python and on a page."""
