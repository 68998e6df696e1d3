"""One page about a run, made of what it left on disk."""
