"""Language models: find and load them, ask them, decode."""
