"""Language models: find and load them, generate answers."""
