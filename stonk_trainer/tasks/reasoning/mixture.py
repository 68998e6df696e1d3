"""Mixtures: which sources a phase is trained on, how much of each, and the rows that come of it.

    sources: [openthoughts3:stop=100000, smoltalk:ratio=0.3]      70% OpenThoughts3, 30% SmolTalk
    task_mix: gsm8k:0.4,mmlu_science:0.3,math:0.3                 shares of the prompts of GRPO

Examples of a source are cached on disk by the Datasets library, so memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.task import DataSummary
from stonk_trainer.tasks.reasoning import sources
from stonk_trainer.tasks.reasoning.sources import SYSTEM, Options

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

MIXTURES = {
    # cold start without reasoning: chat, school mathematics, choices
    "default": ("smoltalk:stop=10000", "gsm8k", "arc_easy", "arc_challenge"),
    "r1_ot": ("openthoughts3",),
    "r1_ot_mixed": ("openthoughts3", "smoltalk:ratio=0.3"),
    "dolci_mid": ("dolci",),
    "r1_rs_sft": ("chat",),  # what `stonk sample` kept
}


@dataclass(frozen=True)
class Part:
    """A source of a mixture. stop: upstream rows read, -1: all. ratio: its share of the rows; None: all it has."""

    source: str
    path: str | None = None
    stop: int = -1
    ratio: float | None = None
    options: Options = field(default_factory=Options)


def parse_part(text: str, options: Options) -> Part:
    """A part as a recipe writes it: `name[:key=value,…]`, keys path, stop, ratio, mode, subjects (joined by +)."""
    name, _, rest = text.partition(":")
    part = Part(name.strip(), options=options)
    sources.source(part.source)
    for item in filter(None, (item.strip() for item in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or key not in ("path", "stop", "ratio", "mode", "subjects"):
            raise UserError(f"sources: {text}: {item} is none of path=, stop=, ratio=, mode=, subjects=")
        part = _with(part, key, value, text)
    return part


def _with(part: Part, key: str, value: str, text: str) -> Part:
    if key == "path":
        return replace(part, path=value)
    if key in ("stop", "ratio"):
        try:
            return replace(part, stop=int(value)) if key == "stop" else replace(part, ratio=float(value))
        except ValueError:
            raise UserError(f"sources: {text}: {key}={value} is not a number") from None
    if key == "subjects":
        if not value.strip("+ "):
            raise UserError(f"sources: {text}: subjects= is blank: name subjects, or leave it out for all")
        subjects = sources.SCIENCE if value == "science" else tuple(value.split("+"))
        return replace(part, options=replace(part.options, subjects=subjects))
    if value not in sources.MODES:
        raise UserError(f"sources: {text}: mode={value} is not one of {', '.join(sources.MODES)}")
    return replace(part, options=replace(part.options, mode=value))


def check_parts(parts: Sequence[Part], key: str) -> None:
    """Raise UserError for an empty mixture, and for stops and ratios that mean nothing."""
    if not parts:
        raise UserError(f"{key}: the mixture is empty: name at least one source")
    for part in parts:
        if part.stop < -1 or part.stop == 0:
            raise UserError(f"{key}: {part.source}: stop {part.stop} must be above 0, or -1 for all")
        if part.ratio is not None and not 0 <= part.ratio <= 1:
            raise UserError(f"{key}: {part.source}: ratio {part.ratio:g} must lie in [0, 1]")
    total = sum(part.ratio or 0 for part in parts)
    if all(part.ratio is not None for part in parts):
        if abs(total - 1) > 1e-6:
            raise UserError(f"{key}: the shares sum to {total:g}, not to 1")
    elif total >= 1:
        raise UserError(f"{key}: ratios sum to {total:g}, which leaves nothing for the sources without one")


def parse_mix(text: str, options: Options) -> list[Part]:
    """`gsm8k:0.4,mmlu_science:0.3,math:0.3` → parts. Raises UserError unless the shares sum to 1."""
    parts = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, colon, share = item.partition(":")
        try:
            ratio = float(share) if colon else 1.0
        except ValueError:
            raise UserError(f"task_mix: {item}: {share} is not a number") from None
        if not sources.source(name).verifier:
            raise UserError(f"task_mix: answers of {name} cannot be verified: choose from {', '.join(verifiable())}")
        parts.append(Part(name, ratio=ratio, options=options))
    check_parts(parts, "task_mix")
    return parts


def verifiable() -> list[str]:
    return [name for name, source in sources.SOURCES.items() if source.verifier]


# ------------------------------------------------------------------------------------------------- rows


def sft_rows(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """Rows `prompt`, `completion`, `source` for SFTTrainer, shuffled. limit: rows at most, drawn at random."""
    chosen, summary = _mixed(parts, split, seed, limit)
    return chosen.select_columns(["prompt", "completion", "source"]), summary


def rl_rows(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """Rows `prompt`, `target`, `verifier`, `source`, `id` for GRPOTrainer, shuffled."""
    chosen, summary = _mixed(parts, split, seed, limit)
    return chosen.map(_asked).select_columns(["prompt", "target", "verifier", "source", "id"]), summary


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """A prompt asks for a thought, also where upstream's own answer has none."""
    rest = [message for message in row["prompt"] if message["role"] != "system"]
    return {"prompt": [{"role": "system", "content": SYSTEM}, *rest]}


def _mixed(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """The rows of a split, shuffled. A part without a ratio gives all it has, and one with a ratio so many that they
    are its share; where all have one, as many as none has to be repeated for."""
    from datasets import concatenate_datasets

    if split == "test":
        raise UserError("the test split is for `stonk eval`: training and validation do not read it")
    fixed = [part for part in parts if part.ratio is None]
    rows = {part: _rows_of(part, split) for part in fixed}
    total = math.inf if limit is None else limit
    if fixed:
        total = sum(map(len, rows.values())) / (1 - sum(part.ratio or 0 for part in parts))
    rows |= {p: _rows_of(p, split, _draw(p, p.ratio * total, seed)) for p in parts if p.ratio}
    if not fixed:
        total = min([total, *(len(its) / part.ratio for part, its in rows.items() if part.ratio)])
    rng = np.random.default_rng(seed)
    chosen = {}
    for part, its in rows.items():
        count = len(its) if part.ratio is None else math.floor(part.ratio * total + 1e-6)
        if count > len(its):
            log.warning("%s: %d rows are wanted and there are %d: all are taken", part.source, count, len(its))
        elif not fixed and count == len(its):
            log.info("%s has %d rows, which limits the mixture to %d", part.source, count, total)
        chosen[part] = its if count >= len(its) else its.select(np.sort(rng.choice(len(its), count, replace=False)))
    mixed = concatenate_datasets(list(chosen.values()))
    if not len(mixed):
        raise UserError(f"the mixture has no {split} row: {', '.join(part.source for part in parts)}")
    for part, its in chosen.items():
        asked = "" if part.ratio is None else f" (asked {part.ratio:.1%})"
        log.info("%s: %d %s rows, %.1f%%%s", part.source, len(its), split, 100 * len(its) / len(mixed), asked)
    drawn = mixed.select(rng.permutation(len(mixed))[:limit])
    return drawn, DataSummary(rows_in_split=len(mixed), rows_drawn=len(drawn))


def _draw(part: Part, count: float, seed: int) -> tuple[int, int] | None:
    """How many examples of a streamed source to draw, and the seed; None: all of it are read."""
    streamed = sources.source(part.source).streamed and part.path is None
    return (math.ceil(count), seed) if streamed and part.stop < 0 and math.isfinite(count) else None


def _rows_of(part: Part, split: str, draw: tuple[int, int] | None = None) -> Dataset:
    """The examples of a part, as a dataset on disk; what was left out is logged."""
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    messages = [{"role": Value("string"), "content": Value("string")}]
    texts = dict.fromkeys(("target", "verifier", "source", "id", "dropped"), Value("string"))
    try:
        rows = Dataset.from_generator(
            sources.examples,
            features=Features({"prompt": messages, "completion": messages, **texts}),
            gen_kwargs={"name": part.source, "path": part.path, "split": split, "options": part.options,
                        "stop": part.stop, "draw": draw},
            fingerprint=_fingerprint(part, split, draw),
        )  # fmt: skip
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    except ValueError as error:  # datasets' way to say that the generator gave nothing
        raise UserError(f"{part.source}: {part.path or 'the source'} has no {split} row") from error
    reasons = np.array(rows["dropped"])
    left_out = Counter(reasons[reasons != ""].tolist())
    for reason, count in left_out.items():
        if reason not in sources.NOT_ASKED_FOR:
            log.info("%s: %d of %d rows left out: %s", part.source, count, len(rows), reason)
    if part.stop > len(rows):
        log.info("%s: stop %d lies beyond the end: all %d rows are read", part.source, part.stop, len(rows))
    return rows.select(np.flatnonzero(reasons == ""))


def _fingerprint(part: Part, split: str, draw: tuple[int, int] | None) -> str:
    """The name of a part's examples in the cache: what is asked for, the files it comes from, and how they are read."""
    state = [repr((part.source, part.path, part.stop, part.options, split, draw)), _code()]
    if part.path:
        files = sources.local_files(part.path)
        for file in sorted(file for of_split in files.values() for file in of_split):
            at = file.stat()
            state.append(f"{file.resolve()} {at.st_size} {at.st_mtime_ns}")
    return hashlib.blake2b("\n".join(state).encode(), digest_size=12).hexdigest()


@cache
def _code() -> str:
    here = Path(__file__).parent
    return "".join((here / file).read_text() for file in ("sources.py", "think_tags.py", "synthetic.py", "verify.py"))
