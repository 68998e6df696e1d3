"""Mixtures: which sources a phase trains on, how much of each, and the rows they give.

    sources: [openthoughts3:stop=100000, smoltalk:ratio=0.3]      70% OpenThoughts3, 30% SmolTalk
    task_mix: gsm8k:0.4,mmlu_science:0.3,math:0.3                 shares of the prompts of GRPO

Examples of a source are cached on disk by the Datasets library, so memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.task import DataSummary
from stonk_trainer.tasks.reasoning import sources
from stonk_trainer.tasks.reasoning.chats import with_instruction
from stonk_trainer.tasks.reasoning.sources import Part

if TYPE_CHECKING:
    from datasets import Dataset

    from stonk_trainer.tasks.reasoning.arguments import ReasoningArguments

log = logging.getLogger(__name__)

MIXTURES = {
    # cold start without reasoning: chat, school mathematics, choices
    "default": ("smoltalk:stop=10000", "gsm8k", "arc_easy", "arc_challenge"),
    "r1_ot": ("openthoughts3",),
    "r1_ot_mixed": ("openthoughts3", "smoltalk:ratio=0.3"),
    "dolci_mid": ("dolci",),
    "r1_rs_sft": ("chat",),  # what `stonk sample` kept
}


# Keys of a recipe that change a named mixture: the sources they apply to, and the setting of a part.
CHANGES = {
    "ot_stop": (("openthoughts", "openthoughts3"), "stop"),
    "ot_mode": (("openthoughts", "openthoughts3"), "mode"),
    "dolci_stop": (("dolci",), "stop"),
    "chat_ratio": (("smoltalk",), "ratio"),
    "rs_data": (("chat",), "path"),
}


def sft_parts(args: ReasoningArguments) -> list[Part]:
    """The parts of the SFT mixture, as changed by other keys of the recipe. Raises UserError for an invalid mixture."""
    texts = args.sources or (MIXTURES[args.sft_recipe] if args.sft_recipe else ())
    if not texts:
        raise UserError(f"no mixture: set sft_recipe (one of {', '.join(MIXTURES)}) or sources")
    parts = _with_options(args, map(parse_part, texts))
    for key, (names, setting) in CHANGES.items():
        if (value := getattr(args, key)) is None:
            continue
        if not any(part.source in names for part in parts):
            raise UserError(f"{key}: this mixture has no {names[-1]}: it is {', '.join(p.source for p in parts)}")
        parts = [replace(part, **{setting: value}) if part.source in names else part for part in parts]
    if args.chat_ratio is not None:  # the share says how many rows, and no stop does
        parts = [replace(part, stop=-1) if part.source == "smoltalk" else part for part in parts]
    check_parts(parts, "sources" if args.sources else "sft_recipe")
    return parts


def rl_parts(args: ReasoningArguments) -> list[Part]:
    """The parts of the GRPO mixture. Raises UserError unless its shares are of verifiable sources and sum to 1."""
    if not args.task_mix:
        raise UserError("no task_mix: name sources and shares, such as gsm8k:0.4,mmlu_science:0.3,math:0.3")
    return _with_options(args, parse_mix(args.task_mix))


def _with_options(args: ReasoningArguments, parts: Iterable[Part]) -> list[Part]:
    """The parts, read from the recipe's files and as its other keys say."""
    options = {key: getattr(args, key) for key in ("prompt_field", "answer_field", "held_out")}
    paths = {}
    for item in args.source_paths:
        name, equals, path = item.partition("=")
        if not equals:
            raise UserError(f"source_paths: {item} is not NAME=PATH")
        sources.source(name)
        sources.local_files(path)
        paths[name] = path
    return [replace(part, path=part.path or paths.get(part.source), **options) for part in parts]


def _subjects(text: str) -> tuple[str, ...]:
    return sources.SCIENCE if text == "science" else tuple(text.split("+"))


# Settings of a part as a recipe writes them.
SETTINGS: dict[str, Callable[[str], Any]] = {
    "path": str, "stop": int, "ratio": float, "mode": str, "subjects": _subjects,
}  # fmt: skip


def parse_part(text: str) -> Part:
    """A part as a recipe writes it: `name[:key=value,…]`, keys path, stop, ratio, mode, subjects (joined by +)."""
    name, _, rest = text.partition(":")
    settings = {}
    sources.source(name.strip())
    for item in filter(None, map(str.strip, rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or key not in SETTINGS:
            raise UserError(f"sources: {text}: {item} is not one of {', '.join(f'{key}=' for key in SETTINGS)}")
        settings[key] = _number(value, SETTINGS[key], f"sources: {text}")
    return Part(name.strip(), **settings)


def parse_mix(text: str) -> list[Part]:
    """`gsm8k:0.4,mmlu_science:0.3,math:0.3` → parts. Raises UserError unless the shares sum to 1."""
    parts = []
    for item in filter(None, map(str.strip, text.split(","))):
        name, colon, share = item.partition(":")
        if not sources.source(name).verifier:
            verifiable = ", ".join(name for name, source in sources.SOURCES.items() if source.verifier)
            raise UserError(f"task_mix: answers of {name} cannot be verified: choose from {verifiable}")
        parts.append(Part(name, ratio=_number(share if colon else "1", float, f"task_mix: {item}")))
    check_parts(parts, "task_mix")
    return parts


def _number(text: str, read: Callable[[str], Any], where: str) -> Any:
    try:
        return read(text)
    except ValueError:
        raise UserError(f"{where}: {text} is not a number") from None


def check_parts(parts: Sequence[Part], key: str) -> None:
    """Raise UserError for an empty mixture, and for stops and ratios out of range. key: of the recipe."""
    if not parts:
        raise UserError(f"{key}: the mixture is empty: name at least one source")
    for part in parts:
        if part.mode not in sources.MODES:
            raise UserError(f"{key}: {part.source}: mode={part.mode} is not one of {', '.join(sources.MODES)}")
        if "" in part.subjects:
            raise UserError(f"{key}: {part.source}: a name in subjects= is blank: leave subjects out for all")
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


# ------------------------------------------------------------------------------------------------- rows


def sft_rows(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """Rows `prompt`, `completion`, `source` for SFTTrainer, shuffled. limit: rows at most, drawn at random."""
    chosen, summary = _mixed(parts, split, seed, limit)
    return chosen.select_columns(["prompt", "completion", "source"]), summary


def rl_rows(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """Rows `prompt`, `target`, `verifier`, `source`, `id` for GRPOTrainer, shuffled."""
    chosen, summary = _mixed(parts, split, seed, limit)
    return chosen.map(_with_system_prompt).select_columns(["prompt", "target", "verifier", "source", "id"]), summary


def _with_system_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """The prompt asks for reasoning, also where upstream's own answer has none."""
    return {"prompt": with_instruction(row["prompt"])}


def _mixed(parts: Sequence[Part], split: str, seed: int, limit: int | None) -> tuple[Dataset, DataSummary]:
    """The rows of a split, shuffled.

    A part without a ratio gives all its rows, one with a ratio as many as make up its share. Where all have one, the
    mixture is as large as it can be without repeating a row.
    """
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
            log.warning("%s: %d rows are needed, and it has %d: all are taken", part.source, count, len(its))
        elif not fixed and count == len(its):
            log.info("%s has %d rows, which limits the mixture to %d", part.source, count, total)
        chosen[part] = its if count >= len(its) else its.select(np.sort(rng.choice(len(its), count, replace=False)))
    mixed = concatenate_datasets(list(chosen.values()))
    if not len(mixed):
        raise UserError(f"the mixture has no {split} row: {', '.join(part.source for part in parts)}")
    for part, its in chosen.items():
        target = "" if part.ratio is None else f" (target {part.ratio:.1%})"
        log.info("%s: %d %s rows, %.1f%%%s", part.source, len(its), split, 100 * len(its) / len(mixed), target)
    drawn = mixed.select(rng.permutation(len(mixed))[:limit])
    return drawn, DataSummary(rows_in_split=len(mixed), rows_drawn=len(drawn))


def _draw(part: Part, count: float, seed: int) -> tuple[int, int] | None:
    """(number of examples to draw from a streamed source, seed); None: all are read."""
    streamed = part.upstream.streamed and part.path is None
    return (math.ceil(count), seed) if streamed and part.stop < 0 and math.isfinite(count) else None


def _rows_of(part: Part, split: str, draw: tuple[int, int] | None = None) -> Dataset:
    """The examples of a part, as a dataset on disk. Rows that give none are counted in the log, by reason."""
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    messages = [{"role": Value("string"), "content": Value("string")}]
    texts = dict.fromkeys(("target", "verifier", "source", "id", "dropped"), Value("string"))
    try:
        rows = Dataset.from_generator(
            sources.examples,
            features=Features({"prompt": messages, "completion": messages, **texts}),
            gen_kwargs={"part": part, "split": split, "draw": draw},
            fingerprint=_fingerprint(part, split, draw),
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    except ValueError as error:  # raised by datasets when the generator gives nothing
        raise UserError(f"{part.source}: {part.path or 'the source'} has no {split} row") from error
    reasons = np.array(rows["dropped"])
    left_out = Counter(reasons[reasons != ""].tolist())
    for reason, count in left_out.items():
        if reason not in sources.NOT_REQUESTED:
            log.info("%s: %d of %d rows left out: %s", part.source, count, len(rows), reason)
    if part.stop > len(rows):
        log.info("%s: stop %d is more than there are: all %d rows are read", part.source, part.stop, len(rows))
    return rows.select(np.flatnonzero(reasons == ""))


def _fingerprint(part: Part, split: str, draw: tuple[int, int] | None) -> str:
    """The name of a part's examples in the cache: it changes with the settings, the files, and the code that reads."""
    state = [repr((replace(part, ratio=None), split, draw)), _code()]
    files = sources.local_files(part.path) if part.path else {}
    for file in sorted(file for of_split in files.values() for file in of_split):
        status = file.stat()
        state.append(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.blake2b("\n".join(state).encode(), digest_size=12).hexdigest()


@cache
def _code() -> str:
    return "".join(file.read_text() for file in sorted(Path(__file__).parent.glob("*.py")))
