"""A page about a run, or about a folder of runs: `stonk report runs/demo`.

Reads what runs and evaluations leave, each file of which may be missing or cut off, and writes `report.html`, which
needs no other file, and its figures as PNG beside it. Statements on the page follow from intervals: what an interval
does not show is not claimed. The page says what is missing and how to make it.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.evaluation.tables import short_names
from stonk_trainer.files import write_whole
from stonk_trainer.report import evaluation_figures, findings, training_figures
from stonk_trainer.report.canvas import Drawn
from stonk_trainer.report.run_folder import Evaluation, Stage, folders_of, how_to_evaluate, read_runs, task_of
from stonk_trainer.task import Pattern, Table, Task
from stonk_trainer.terminal import printable

LONGEST_SHOWN = 6_000  # characters of a completion
LOG_LINES = 15  # last lines of training.log


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
    judged = [evaluation_section(evaluation) for evaluation in evaluations] + own_evaluations(run_dir, stages)
    sections = [stage_section(stage) for stage in stages] + judged
    stems = [(section.kind, section.file_stem) for section in sections]
    for which, section in enumerate(sections, start=1):
        if stems.count((section.kind, section.file_stem)) > 1:  # "a b" and "a+b"
            section.file_stem += f"-{which}"
        section.anchor = f"{which}-{re.sub(r'[^a-z0-9]+', '-', section.title.lower()).strip('-')}"
    html = render(run_dir, sections, missing_evaluation=None if judged else how_to_evaluate(run_dir, stages))
    try:
        for section in sections:
            for figure in section.figures:
                write_whole(out / f"{section.file_stem}-{figure.name}.png", figure.png)
        write_whole(out / "report.html", html)
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written there: {error.strerror}; give another --out") from error
    return out / "report.html", sum(len(section.figures) for section in sections)


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

    from stonk_trainer.version import __version__

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
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


def stage_section(stage: Stage) -> Section:
    """What the page says and shows about one run."""
    record, names = stage.record, stage.record.get("rewards", [])
    section = Section(stage.name, record.get("stage", "training"), _file_stem(stage.name), problems=stage.problems)
    section.statements = findings.stage_statements(stage)
    section.recipe_text, section.command = stage.recipe_text, record.get("command")
    section.environment = findings.environment_table(record.get("environment", {}))
    section.console = stage.console[-LOG_LINES:]
    drawn = [training_figures.rewards(stage.lines, stage.metrics, names)]
    if stage.forecasts:
        drawn.append(training_figures.direction_accuracy(stage.lines))
        drawn.append(training_figures.direction_balance(stage.lines, stage.market["window"]["size"]))
    drawn += [
        training_figures.evidence(stage.lines),
        training_figures.kl(stage.metrics, stage.recipe.get("kl_target")),
        training_figures.lengths(stage.metrics, stage.recipe.get("max_completion_length")),
        training_figures.variance(stage.metrics),
        None if stage.run_log else training_figures.sft_loss(stage.metrics),
    ]
    section.figures = [figure for figure in drawn if figure]
    section.tables = [
        *findings.data_table(record),
        *findings.market_table(stage.market),
        *findings.milestone_table(stage.milestone),
    ]
    if stage.lines:
        section.patterns = gaming_patterns(stage)
        section.in_short = [findings.trend(stage.lines, "total", "the total reward")]
        warnings = [pattern.name for pattern in section.patterns or [] if pattern.severity == "warning"]
        section.in_short += [f"Warning: {name}." for name in warnings]
        section.samples = choose_samples(stage.lines, names, stage.forecasts, seed=0)
    return section


def gaming_patterns(stage: Stage) -> list[Pattern] | None:
    """What the task finds in the run's log; None when it does not look, or is not one of ours: nothing is imported."""
    cls = task_of(stage)
    if cls is None or cls.find_patterns is Task.find_patterns:
        return None
    return cls(cls.Arguments()).find_patterns(stage.lines, stage.recipe.get("max_completion_length"))


def _file_stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "run"


def evaluation_section(evaluation: Evaluation) -> Section:
    """What the page says and shows about one evaluation."""
    summary = evaluation.summary
    section = Section(evaluation.name, "evaluation", _file_stem(evaluation.name), problems=evaluation.problems)
    section.recipe_text, section.command = evaluation.recipe_text, summary.get("command")
    forecasts = "buy_and_hold" in summary
    if summary:
        names = list(summary["models"])
        summary = findings.renamed(summary, dict(zip(names, short_names(names), strict=True)))
        section.answers_of = summary["model"] or ""
        if forecasts:
            _add_forecasts(section, summary)
        else:
            section.statements = findings.answer_statements(summary, summary["model"])
            section.in_short = section.statements[:1]
            section.tables = [*findings.reward_table(summary), *findings.difference_table(summary)]
    lines = [p for p in evaluation.predictions if p["model"] == evaluation.summary.get("model", p["model"])]
    if lines and "rewards" in lines[0]:
        weights = evaluation.summary.get("reward_weights", dict.fromkeys(lines[0]["rewards"], 1.0))
        lines = [_as_in_a_run_log(line, weights) for line in lines]
        section.samples = choose_samples(lines, list(weights), forecasts, seed=0)
    return section


def own_evaluations(run_dir: Path, stages: Sequence[Stage]) -> list[Section]:
    """Evaluations by a command of the task's own, such as `stonk forecast --evaluate`: of the last model judged there,
    with the pictures beside them."""
    from PIL import Image

    sections = []
    for folder in folders_of(run_dir):
        for stage in reversed(stages):
            task, name = task_of(stage), folder.resolve().name
            try:
                results = None if task is None else task.card_results(folder, stage.folder / "best_model")
            except (ValueError, KeyError, TypeError):  # cut off, or of another version
                sections.append(_unread(name))
                break
            if results is None:
                continue
            section = Section(name, "evaluation", _file_stem(name), statements=list(results.sentences))
            section.tables, section.answers_of = list(results.tables), stage.name
            for path in sorted(folder.glob("*.png")):
                with Image.open(path) as picture:
                    size = picture.size
                caption = f"{path.name} of the same folder."
                section.figures.append(Drawn(path.stem, f"The picture {path.name}", caption, path.read_bytes(), size))
            sections.append(section)
            break
    return sections


def _unread(name: str) -> Section:
    problem = "Its results cannot be read: they are cut off, or of another version; judge the model again."
    return Section(name, "evaluation", _file_stem(name), problems=[problem])


def _add_forecasts(section: Section, summary: dict) -> None:
    """The statements, figures and tables of an evaluation of forecasts."""
    models, baselines = summary["models"], summary["baselines"]
    if models:
        section.statements = findings.evaluation_statements(summary, summary["model"])
        section.in_short = [section.statements[0], *findings.audit_statement(summary)]
    else:
        section.statements = ["No model was judged here: these are the baselines that one would have to beat."]
    shown = models or baselines
    drawn = [
        evaluation_figures.reliability(shown),
        evaluation_figures.roc(shown, baselines),
        evaluation_figures.equity(shown, summary["buy_and_hold"], summary["costs"]["cost_bps"]),
        evaluation_figures.market_adaptation(shown),
    ]
    section.figures = [figure for figure in drawn if figure]
    section.tables = [
        findings.forecaster_table(summary),
        *findings.reward_table(summary),
        *findings.difference_table(summary),
        findings.backtest_table(summary),
        *findings.audit_tables(summary),
    ]
    if not summary.get("audit"):
        section.problems.append("No audit: `stonk eval --audit` checks trivial rules, leaks and overlap of splits.")


# ------------------------------------------------------------------------------------------------- samples


def _as_in_a_run_log(prediction: dict, weights: dict[str, float]) -> dict:
    """A line of predictions.jsonl with its rewards and their weighted total beside the other columns."""
    rewards = prediction["rewards"]
    return {**prediction, **rewards, "total": sum(weight * (rewards[name] or 0) for name, weight in weights.items())}


def choose_samples(lines: Sequence[dict], names: Sequence[str], forecasts: bool, seed: int) -> list[Sample]:
    """The best, the median and the worst answer by total reward, ties at random; of forecasts the readable ones, and
    then an unreadable one."""
    lines = random.Random(seed).sample(lines, len(lines))
    readable = [line for line in lines if not forecasts or line["direction"] is not None]
    ranked = sorted(readable, key=lambda line: line["total"])
    places = {"best total reward": -1, "median total reward": len(ranked) // 2, "worst total reward": 0}
    chosen: list[tuple[str, dict]] = []
    for what, place in places.items():
        if ranked and not any(line is ranked[place] for _, line in chosen):
            chosen.append((what, ranked[place]))
    chosen += [("an unreadable one", line) for line in lines if forecasts and line["direction"] is None][:1]
    return [_sample(what, line, names, forecasts) for what, line in chosen]


def _sample(chosen: str, line: dict, names: Sequence[str], forecasts: bool) -> Sample:
    about = [f"step {line['step']}"] if "step" in line else []
    if forecasts:
        change = findings.minus(f"{line['next_return']:+.1%}")
        about += [line["ticker"], line["date"], f"went {line['label']} {change}"]
    if forecasts and line["direction"]:
        stated = "" if line["confidence"] is None else f" at {line['confidence']:.0%}"
        about.append(f"forecast {line['direction']}{stated}")
    about += [f"{name} {findings.number(line[name], digits=2)}" for name in (*names, "total")]
    text, remarks = line["completion"], []
    if len(text) > LONGEST_SHOWN:
        remarks.append(f"{len(text) - LONGEST_SHOWN:,} further characters are left out.")
    if invented := line.get("invented"):
        remarks.append(f"Invented numbers in the thought: {', '.join(map(str, invented))}.")
    evidence = training_figures.evidence_of(line)
    return Sample(chosen, " · ".join(about), text[:LONGEST_SHOWN] or "(empty)", evidence, remarks)


if __name__ == "__main__":
    main()
