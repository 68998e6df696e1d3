"""What TRL's trainers need to be resumed exactly, to share prompts, and to say what they do."""
