"""A resolved recipe, as the commands get it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stonk_trainer.files import make_folder, write_whole
from stonk_trainer.recipe.keys import SECRET
from stonk_trainer.task import Task
from stonk_trainer.terminal import log, start_log


@dataclass
class Arguments:
    """A resolved recipe: what each part of a run reads, and `values`, the keys set by file and flags."""

    trainer: str
    task: Task
    train: Any  # SFTConfig, GRPOConfig or EvalRun
    options: Any  # our keys: SFTRun, GRPORun or EvalRun
    model: Any  # ModelConfig
    values: dict[str, Any]
    command: str
    notes: list[str] = field(default_factory=list)  # what to know of the run on this machine

    def start_log(self) -> None:
        """Start the log, with the notes first."""
        start_log()
        for note in self.notes:
            log.warning(note)

    def save(self, folder: str | Path) -> None:
        """Write `recipe.yaml`: the keys of file and flags under TRL's names, ready to be run again."""
        import yaml  # PyYAML puts quotes around what YAML 1.1 would misread, so that every reader agrees

        values = {key: value for key, value in self.values.items() if key not in SECRET}
        text = f"# {self.command}\n" + yaml.safe_dump(values, sort_keys=False)
        write_whole(make_folder(folder, "output_dir") / "recipe.yaml", text)
