"""What can be found before a run starts."""
