"""A page about a run, or about a folder of runs: `stonk report runs/demo`.

Reads what runs and evaluations leave, each file of which may be missing or cut off, and writes `report.html`, which
needs no other file, and its figures as PNG beside it. Statements on the page are generated from intervals: what an
interval does not show is not said. The page says what is missing and how to make it.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.imports import name_of
from stonk_trainer.report import figures, findings
from stonk_trainer.report.figures import Drawn
from stonk_trainer.report.findings import Table
from stonk_trainer.report.run_folder import Evaluation, Stage, command_of, how_to_evaluate, mapping, number, read_runs
from stonk_trainer.tasks.stocks.gaming import NEEDED, Pattern, find_patterns
from stonk_trainer.tasks.stocks.rewards import COMPONENTS

# Columns of a run log that are numbers and no reward.
NO_REWARD = {"step", "next_return", "confidence", "move", "grounded", "grounded_claims", "base_rate_up", "total"}
OLD_LOG = "The run log is of an older version, which read claims from prose: they are left out."
LONGEST_SHOWN = 6_000  # characters of a completion
LOG_LINES = 15  # last lines of training.log
WINDOW = 200  # completions, when market_stats.json does not say


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="stonk report",
        description="Write report.html, one page that needs no other file, and its figures about a run.",
        epilog="example: stonk report runs/demo",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of one run, or of the stages and their evaluation")
    parser.add_argument("--out", metavar="FOLDER", help="where the page and its figures go (RUN_DIR/report)")
    args = parser.parse_args(argv)
    run_dir = Path(args.run_dir)
    page, count = write_report(run_dir, Path(args.out) if args.out else run_dir / "report")
    print(f"saved {page} ({page.stat().st_size / 1e6:.1f} MB, {count} figures)")


def write_report(run_dir: Path, out: Path) -> tuple[Path, int]:
    """Write the page about `run_dir`, and its figures, into `out`. Returns the page's path and the number of figures.

    Raises UserError when there is nothing to report about, or a file cannot be read or written.
    """
    try:
        stages, evaluations = read_runs(run_dir)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    sections = [stage_section(stage) for stage in stages] + [evaluation_section(e) for e in evaluations]
    stems = [(section.kind, section.file_stem) for section in sections]
    for which, section in enumerate(sections, start=1):
        if stems.count((section.kind, section.file_stem)) > 1:  # "a b" and "a+b"
            section.file_stem += f"-{which}"
        section.anchor = f"{which}-{re.sub(r'[^a-z0-9]+', '-', section.title.lower()).strip('-')}"
    html = render(run_dir, sections, missing_evaluation=None if evaluations else how_to_evaluate(run_dir, stages))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for section in sections:
            for figure in section.figures:
                _replace(out / f"{section.file_stem}-{figure.name}.png", figure.png)
        _replace(out / "report.html", html.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written there: {error.strerror}; give another --out") from error
    return out / "report.html", sum(len(section.figures) for section in sections)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------- page


class Sample(NamedTuple):
    """A completion to show: why it was chosen, its row and rewards, its text, its evidence, and remarks."""

    chosen: str
    about: str
    text: str
    evidence: list[dict[str, str]]  # name, value, side, verdict
    remarks: list[str]


@dataclass
class Section:
    """One part of the page: a stage or an evaluation."""

    title: str
    kind: str
    file_stem: str  # figures are saved as file_stem-name.png
    statements: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Drawn] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    patterns: list[Pattern] | None = None
    samples: list[Sample] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    recipe_text: str = ""
    environment: Table | None = None
    command: str | None = None
    answers_of: str = ""  # the model whose answers are shown
    in_short: list[str] = field(default_factory=list)  # for the head of the page
    anchor: str = ""


def render(run_dir: Path, sections: Sequence[Section], missing_evaluation: str | None) -> str:
    """The page as one string of HTML. Everything that is not the template's own is escaped by Jinja."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    from stonk_trainer import __version__

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = lambda said: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(said))))
    environment.filters["data_uri"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    template = environment.from_string((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    page = template.render(
        title=f"{run_dir.resolve().name}",
        path=str(run_dir),
        sections=sections,
        evaluations_first=sorted(sections, key=lambda section: section.kind != "evaluation"),
        missing_evaluation=missing_evaluation,
        made=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
    )
    return printable(page)


_HIDDEN = {code: "�" for code in (*range(32), 0x7F, *range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, 0xFEFF)}
_HIDDEN |= {code: "�" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))}
_HIDDEN = {code: sign for code, sign in _HIDDEN.items() if chr(code) not in "\n\r\t"}


def printable(page: str) -> str:
    """Control signs, signs that turn the direction of writing, and lone surrogates, one for one, as �."""
    return page.translate(_HIDDEN)


def stage_section(stage: Stage) -> Section:
    """What the page says and shows about one run."""
    names = reward_names(stage)
    section = Section(stage.name, _kind(stage), _file_stem(stage.name), problems=stage.problems)
    section.statements = findings.stage_statements(stage)
    section.recipe_text, section.command = stage.recipe_text, command_of(stage)
    section.environment = findings.environment_table(stage.environment)
    section.console = stage.console[-LOG_LINES:]
    target, limit = (number(stage.recipe.get(key)) for key in ("kl_target", "max_completion_length"))
    window = number(mapping(stage.market, "window").get("size"))
    drawn = [
        figures.rewards(stage.lines, stage.metrics, names),
        figures.direction_accuracy(stage.lines),
        figures.direction_balance(stage.lines, WINDOW if math.isnan(window) else int(window)),
        figures.evidence(stage.lines),
        figures.kl(stage.metrics, None if math.isnan(target) else target),
        figures.lengths(stage.metrics, None if math.isnan(limit) else limit),
        figures.variance(stage.metrics),
        figures.sft_loss(stage.metrics) if stage.trainer == "sft" or not stage.run_log else None,
    ]
    section.figures = [figure for figure in drawn if figure]
    section.tables = [*findings.market_table(stage.market), *findings.milestone_table(stage.milestone)]
    if any("claims" in line for line in stage.lines):
        section.problems.append(OLD_LOG)
    if stage.lines:
        section.patterns = gaming_patterns(stage, section.problems)
        section.in_short = [findings.trend(stage.lines, "total", "the total reward")]
        warnings = [pattern.name for pattern in section.patterns or [] if pattern.severity == "warning"]
        section.in_short += [f"Warning: {name}." for name in warnings]
        section.samples = choose_samples(stage.lines, names, seed=0)
    return section


def _kind(stage: Stage) -> str:
    if stage.trainer == "sft":
        return "supervised training"
    if stage.trainer == "grpo" and stage.recipe.get("task") == "stocks":
        natural = stage.recipe.get("natural_distribution")
        return f"reinforcement learning (GRPO) on {'the market as it is' if natural else 'balanced rows'}"
    return "reinforcement learning (GRPO)" if stage.run_log or stage.trainer == "grpo" else "training"


def _file_stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "run"


def evaluation_section(evaluation: Evaluation) -> Section:
    """What the page says and shows about one evaluation."""
    summary = evaluation.summary
    models, baselines = findings.forecasters(summary)
    section = Section(evaluation.name, "evaluation", _file_stem(evaluation.name), problems=evaluation.problems)
    section.recipe_text, section.command = evaluation.recipe_text, command_of(evaluation)
    if models or baselines:
        if models:
            last = findings.short_of(mapping(summary, "models")).get(str(summary.get("model")), list(models)[-1])
            section.statements = findings.evaluation_statements(summary, last, models, baselines)
            section.in_short = [said for said in (section.statements[0], findings.audit_statement(summary)) if said]
            section.answers_of = last
        else:
            section.statements = ["No model was judged here: these are the baselines that one would have to beat."]
        shown = models or baselines
        cost = findings.cost_of(summary, shown)
        held = summary.get("buy_and_hold") if isinstance(summary.get("buy_and_hold"), dict) else None
        drawn = [
            figures.reliability(shown),
            figures.roc(shown, baselines if models else {}),
            figures.equity(shown, held, cost),
            figures.market_adaptation(shown),
        ]
        section.figures = [figure for figure in drawn if figure]
        absent = [
            f"The summary has no {what}: it was written by an older version; `stonk eval` again adds it."
            for what, there in (
                ("baselines", baselines),
                ("calibration", any("calibration" in s for s in shown.values())),
                ("ROC curve", any("roc" in s for s in shown.values())),
                ("backtest", any("backtest" in s for s in shown.values())),
            )
            if not there
        ]
        section.problems += absent
        section.tables = [
            findings.forecaster_table(models, baselines),
            *findings.reward_table(models),
            *findings.difference_table(summary),
            *findings.backtest_table(models, baselines, held, cost),
            *findings.audit_tables(summary),
        ]
        if "audit" not in summary:
            section.problems.append("No audit: `stonk eval --audit` checks trivial rules, leaks and overlap of splits.")
    last_predictions = [p for p in evaluation.predictions if p.get("model") == summary.get("model")]
    lines = [_flat(p) for p in last_predictions or evaluation.predictions]
    if lines:
        names = list(mapping(lines[0], "rewards"))
        _add_totals(lines, names, evaluation.recipe)
        section.samples = choose_samples(lines, names, seed=0)
    return section


def reward_names(stage: Stage) -> list[str]:
    """The rewards in a run log: those of the recipe; without one, every number that is no other column."""
    present = {key for line in stage.lines[:50] for key, value in line.items() if not math.isnan(number(value))}
    of_recipe = stage.recipe.get("reward")
    if isinstance(of_recipe, list):
        named = [name_of(str(reward)) for reward in of_recipe]
        if known := [name for name in named if name in present]:
            return known
    return sorted(present - NO_REWARD)


def gaming_patterns(stage: Stage, problems: list[str]) -> list[Pattern] | None:
    """What `gaming.find_patterns` says of the lines that have the columns it needs; None when none has."""
    rewards = [name for name in reward_names(stage) if name in COMPONENTS]
    numbers = ("step", "total", *rewards)
    whole = [
        line
        for line in stage.lines
        if all(key in line for key in NEEDED)
        and not any(math.isnan(number(line.get(key))) for key in numbers)
        and all(isinstance(line[key], str) for key in ("ticker", "date", "completion"))
        and line["direction"] in ("UP", "DOWN", None)
    ]
    if not whole:
        return None
    if len(whole) < len(stage.lines):
        problems.append(
            f"{len(stage.lines) - len(whole)} lines of {stage.run_log} lack columns: not read for patterns."
        )
    limit = number(stage.recipe.get("max_completion_length"))
    return find_patterns(whole, None if math.isnan(limit) else int(limit))


# ------------------------------------------------------------------------------------------------- samples


def choose_samples(lines: Sequence[dict], names: Iterable[str], seed: int) -> list[Sample]:
    """The best, the median and the worst readable answer by total reward, and an unreadable one; ties at random."""
    rng = random.Random(seed)
    lines = [line for line in lines if isinstance(line.get("completion"), str)]
    rng.shuffle(lines)
    forecasts = any("direction" in line for line in lines)
    readable = [line for line in lines if not forecasts or line.get("direction") in ("UP", "DOWN")]
    ranked = sorted(
        (line for line in readable if not math.isnan(number(line.get("total")))), key=lambda line: line["total"]
    )
    places = {"best total reward": -1, "median total reward": len(ranked) // 2, "worst total reward": 0}
    chosen: list[tuple[str, dict]] = []
    for what, place in places.items():
        if ranked and not any(line is ranked[place] for _, line in chosen):
            chosen.append((what, ranked[place]))
    read = {id(line) for line in readable}
    chosen += [("an unreadable one", line) for line in lines if id(line) not in read][:1]
    names = list(names)
    return [_sample(what, line, names) for what, line in chosen]


def _sample(chosen: str, line: dict, names: Sequence[str]) -> Sample:
    about = []
    if not math.isnan(step := number(line.get("step"))):
        about.append(f"step {step:.0f}")
    about += [str(line[key]) for key in ("ticker", "date") if line.get(key) is not None]
    if line.get("label") in ("UP", "DOWN"):
        went = number(line.get("next_return"))
        about.append(f"went {line['label']}" + ("" if math.isnan(went) else f" {findings.minus(f'{went:+.1%}')}"))
    if line.get("direction") in ("UP", "DOWN"):
        confidence = number(line.get("confidence"))
        about.append(f"forecast {line['direction']}" + ("" if math.isnan(confidence) else f" at {confidence:.0%}"))
    about += [f"{name} {findings.figure_of(line[name], digits=2)}" for name in (*names, "total") if name in line]
    text, evidence, remarks = line["completion"], line.get("evidence"), []
    if len(text) > LONGEST_SHOWN:
        remarks.append(f"{len(text) - LONGEST_SHOWN:,} further characters are left out.")
    if isinstance(invented := line.get("invented"), list) and invented:
        remarks.append(f"Invented numbers in the thought: {', '.join(map(str, invented))}.")
    return Sample(chosen, " · ".join(about), text[:LONGEST_SHOWN] or "(empty)", evidence_rows(evidence), remarks)


def evidence_rows(evidence: Any) -> list[dict[str, str]]:
    """Lines of evidence as a log holds them; what is none is left out."""
    keys = ("name", "value", "side", "verdict")
    lines = [line for line in evidence if isinstance(line, dict)] if isinstance(evidence, list) else []
    return [{key: str(line.get(key, "")) for key in keys} for line in lines]


def _flat(prediction: dict) -> dict:
    """A line of predictions.jsonl with its rewards beside the other columns, as in a run log."""
    return {**prediction, **mapping(prediction, "rewards")}


def _add_totals(lines: list[dict], names: Sequence[str], recipe: dict) -> None:
    """The weighted total of each line; the plain mean when the recipe does not weigh these rewards."""
    weights = recipe.get("reward_weights")
    rewards = recipe.get("reward")
    named = [name_of(str(reward)) for reward in rewards] if isinstance(rewards, list) else []
    if not isinstance(weights, list) or named != list(names) or len(weights) != len(names):
        weights = [1 / len(names)] * len(names) if names else []
    for line in lines:
        if names:
            line["total"] = sum(number(w) * number(line.get(name)) for w, name in zip(weights, names, strict=True))


if __name__ == "__main__":
    main()
