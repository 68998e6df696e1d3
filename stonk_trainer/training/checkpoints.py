"""Checkpoints that are whole or not there, and which one a run is resumed from.

`resumable.py` writes a checkpoint into a hidden folder of the run, with the SHA-256 of each of its files, and renames
it when every rank is done. `--resume_from_checkpoint auto` takes the last one whose files are what they were, and the
beginning where there is none.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from stonk_trainer.errors import UserError
from stonk_trainer.recipe import AUTO
from stonk_trainer.terminal import log

CHECKSUMS = "checksums.json"
UNFINISHED = ".unfinished"  # in a run's folder: the checkpoint being written
PREVIOUS = ".previous_run"  # where a new run in the same folder moves what it finds
RUN_ARTIFACTS: tuple[str, ...] = ("training.log", "run.json", "metrics.jsonl", "market_stats.json")
RUN_ARTIFACTS += ("training_log.jsonl", "stage2_training_log.jsonl", "milestone.json", "best_model", "best_adapter")


def checkpoints(run: str | Path) -> list[Path]:
    """The checkpoints of a run's folder, the last first."""
    named = [path for path in Path(run).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(named, key=step_of, reverse=True)


def damage(checkpoint: str | Path) -> str | None:
    """What is wrong with a checkpoint's files; None when they match their checksums, or have none."""
    folder = Path(checkpoint)
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return "trainer_state.json is missing or cannot be read"
    if not (folder / CHECKSUMS).is_file():
        return None  # of another tool: TRL writes none
    try:
        expected = dict(json.loads((folder / CHECKSUMS).read_text()))
    except (ValueError, TypeError):
        return f"{CHECKSUMS} cannot be read"
    for name, digest in expected.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _digest(folder / name) != digest:
            return f"{name} is not what was written"
    return None


def resume_point(value: str | None, run: str | Path) -> str | None:
    """`--resume_from_checkpoint` → the checkpoint to resume from, or None: from the start.

    auto: the last whole checkpoint of the run's folder; None when it has none. A damaged one is skipped with a
    warning. Raises UserError for a folder that is not a checkpoint, or is damaged.
    """
    if value is None:
        return None
    if value in AUTO:
        for folder in checkpoints(run):
            wrong = damage(folder)
            if wrong is None:
                log.info("resuming from %s", folder)
                return str(folder)
            log.warning("%s is damaged (%s): skipped", folder, wrong)
        log.info("no checkpoint in %s: starting from the beginning", run)
        return None
    wrong = damage(value)
    if wrong is not None:
        whole = [str(folder) for folder in checkpoints(Path(value).parent) if damage(folder) is None]
        hint = f"resume from {whole[0]}, the last whole one" if whole else "no other checkpoint of the run is whole"
        raise UserError(f"resume_from_checkpoint: {value} is damaged ({wrong}): {hint}")
    log.info("resuming from %s", value)
    return value


def archive_previous_run(run: Path, resumed: str | None) -> None:
    """Move what an earlier run left in `run` into `.previous_run`: its later checkpoints, and if this one starts anew
    all of them, its logs and its model, so that nothing of it is taken for this run's."""
    step = step_of(Path(resumed)) if resumed else 0
    old = [folder for folder in checkpoints(run) if step_of(folder) > step]
    if not resumed:
        old += [run / name for name in RUN_ARTIFACTS if (run / name).exists()]
    shutil.rmtree(run / UNFINISHED, ignore_errors=True)
    if not old:
        return
    before = run / PREVIOUS
    if (run / "best_model") in old or not (before / "best_model").exists():  # only a newer model replaces a model
        shutil.rmtree(before, ignore_errors=True)
    before.mkdir(exist_ok=True)
    for path in old:
        if (before / path.name).is_dir():
            shutil.rmtree(before / path.name)
        path.rename(before / path.name)
    log.info("%s: files of an earlier run moved to %s", run, run / PREVIOUS)


def step_of(checkpoint: Path) -> int:
    """The step a checkpoint was written at: its name says so, or else its state."""
    named = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(named[1]) if named else json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(folder: Path, checkpoint: Path) -> None:
    """Give a checkpoint that was written in `folder` its checksums and its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): _digest(path) for path in files}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")
    if checkpoint.exists():  # of a run that was resumed from an earlier one
        shutil.rmtree(checkpoint)
    folder.rename(checkpoint)
