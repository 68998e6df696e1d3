"""A trained model for others: merged, as GGUF, on the Hub with its card."""
