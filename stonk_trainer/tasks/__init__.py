"""The tasks that come with the package, a folder each; `stonk_trainer.task` says what a task is."""
