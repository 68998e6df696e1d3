"""What the files of a run show, in sentences and tables. What their intervals do not show is not said."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stonk_trainer.evaluation.tables import short_names
from stonk_trainer.report import figures
from stonk_trainer.report.run_folder import RUN_LOGS, Stage, interval, listed, mapping, number


class Table(NamedTuple):
    caption: str
    header: list[str]
    rows: list[list[str]]  # the first cell of a row names it


def forecasters(summary: dict) -> tuple[dict[str, dict], dict[str, dict]]:
    """The summaries of models and of baselines, under short names; an old summary holds one model at its top level."""
    models = {name: s for name, s in mapping(summary, "models").items() if isinstance(s, dict)}
    if not models and not math.isnan(number(summary.get("accuracy"))):
        models = {str(summary.get("model") or "model"): summary}
    short = short_of(models)
    baselines = {name: s for name, s in mapping(summary, "baselines").items() if isinstance(s, dict)}
    return {short[name]: s for name, s in models.items()}, baselines


def short_of(models: dict) -> dict[str, str]:
    names = list(models)
    return dict(zip(names, short_names(names), strict=True))


# ------------------------------------------------------------------------------------------------- statements


def stage_statements(stage: Stage) -> list[str]:
    """What the logs of a run show, in plain sentences."""
    said = []
    steps, loss = figures.series(stage.metrics, "loss")
    if len(loss) and not stage.run_log:
        said.append(f"{_count(int(steps[-1]), 'step')}; the loss went from {loss[0]:.2f} to {loss[-1]:.2f}.")
    if stage.lines:
        met = {step for step in figures.column(stage.lines, "step") if not math.isnan(step)}
        readable = [line for line in stage.lines if line.get("direction") in ("UP", "DOWN")]
        text = f"{_count(len(stage.lines), 'answer')} over {_count(len(met), 'step')}"
        if any("direction" in line for line in stage.lines):
            text += f"; {len(readable) / len(stage.lines):.0%} of them readable"
        said.append(text + ".")
        said.append(trend(stage.lines, "total", "The total reward"))
    for key, text in (
        ("frac_reward_zero_std", "of the groups had no variance and taught nothing"),
        ("completions/clipped_ratio", "of the answers were cut off at the limit"),
    ):
        _, share = figures.series(stage.metrics, key)
        if len(share):
            late = share[-max(1, len(share) // 4) :].mean()
            said.append(f"In the last quarter of the logged steps {late:.0%} {text}.")
    for key in ("loss", "grad_norm"):
        broken = [line.get("step") for line in stage.metrics if key in line and math.isnan(number(line[key]))]
        if broken:
            said.append(f"Warning: {key} was not a finite number at {_count(len(broken), 'logged step')}.")
    told = [line for line in stage.console if "milestone" in line and "reached" in line]
    if stage.milestone:
        said.append(f"The milestone was reached at step {stage.milestone.get('step')}.")
    elif told:
        said.append("At the end: " + re.sub(r"^[\d\-:, ]+[A-Z]+ ", "", told[-1]).strip() + ".")
    elif stage.run_log == RUN_LOGS[0] and stage.lines:
        said.append("There is no milestone.json: the milestone was not reached, or not judged.")
    return [sentence for sentence in said if sentence]


def trend(lines: Sequence[dict], key: str, subject: str) -> str:
    """How a column changed from the first to the last third of the steps, judged by a Welch interval over steps.

    Steps are the units, because answers to one prompt are alike. Fewer than 3 steps in a third give no interval.
    """
    step, value = figures.column(lines, "step"), figures.column(lines, key)
    there = ~np.isnan(step + value)
    steps, at = np.unique(step[there], return_inverse=True)
    if not len(steps):
        return ""
    means = np.bincount(at, value[there]) / np.bincount(at)
    third = len(steps) // 3
    if third < 1:
        return f"{subject} was {means.mean():.3f} on average; too few steps to speak of a change."
    early, late = means[:third], means[-third:]
    change = late.mean() - early.mean()
    text = f"{subject} was {early.mean():.3f} in the first third of the steps and {late.mean():.3f} in the last"
    if third < 3:
        return f"{text}; too few steps to tell that from chance."
    from scipy.stats import t

    spread = [part.var(ddof=1) / third for part in (early, late)]
    error = math.sqrt(sum(spread))
    if error == 0:
        return f"{text}."
    freedom = sum(spread) ** 2 / sum(s**2 / (third - 1) for s in spread)
    half = float(t.ppf(0.975, freedom)) * error
    verdict = "no clear change" if abs(change) <= half else "it rose" if change > 0 else "it fell"
    return f"{text}: {_signed(change, 3)} {_range(change - half, change + half, 3, signed=True)}, {verdict}."


def evaluation_statements(summary: dict, name: str, models: dict[str, dict], baselines: dict[str, dict]) -> list[str]:
    """What the evaluation shows about model `name`, in plain sentences that follow from the intervals."""
    s = models[name]
    majority = number(s.get("majority_accuracy"))
    if math.isnan(majority):
        majority = number(baselines.get("majority", {}).get("accuracy"))
    difference = _against_majority(summary, name)
    said = [accuracy_statement(name, s, majority, difference, str(summary.get("split") or "judged"))]
    if number(s.get("parse_rate")) < 0.995:
        said.append(f"{1 - s['parse_rate']:.0%} of its answers are unreadable; they count as wrong.")
    said.append(audit_statement(summary))
    said.append(_brier_statement(s, number(baselines.get("prior", {}).get("brier"))))
    said.append(_auc_statement(s))
    said.append(_balance_statement(s))
    said.append(_backtest_statement(s, summary))
    if len(models) > 1:
        said.append(
            f"{len(models)} models were judged on the same rows: the best of several always looks better than it is."
        )
    return [sentence for sentence in said if sentence]


def audit_statement(summary: dict) -> str:
    failed = [finding for finding in listed(summary, "audit") if finding.get("passed") is False]
    if not failed:
        return ""
    return f"The audit found {_count(len(failed), 'problem')}: no number here means anything until that is explained."


def _brier_statement(s: dict, prior: float) -> str:
    """prior: Brier score of always stating the training share of UP; NaN when not known."""
    brier, ends = number(s.get("brier")), interval(s.get("brier_ci95"))
    if math.isnan(brier):
        return ""
    mark, beside = 0.25, "always stating 50% scores 0.250"
    if prior < mark:
        mark, beside = prior, f"always stating the training share of UP scores {prior:.3f}"
    if ends is None:
        verdict = "without an interval this cannot be told from chance"
    elif ends[1] < mark:
        verdict = "its probabilities are better than that"
    elif ends[0] > mark:
        verdict = "its probabilities are worse than that"
    else:
        verdict = "no clear difference"
    return f"Its Brier score is {brier:.3f}{_range_of(ends, 3)} (lower is better); {beside}: {verdict}."


def _auc_statement(s: dict) -> str:
    area, ends = number(s.get("roc_auc")), interval(s.get("roc_auc_ci95"))
    if math.isnan(area):
        return ""
    if ends is None or ends[0] <= 0.5 <= ends[1]:
        verdict = "its ranking of days cannot be told from a coin's"
    else:
        verdict = f"it ranks days {'better' if ends[0] > 0.5 else 'worse'} than a coin on these dates"
    return f"Its ROC-AUC is {area:.2f}{_range_of(ends, 2)}, a coin's is 0.50: {verdict}."


def _balance_statement(s: dict) -> str:
    predicted, actual = number(s.get("predicted_up_rate")), number(s.get("base_rate_up"))
    if math.isnan(predicted + actual):
        return ""
    gap, ends = number(s.get("up_rate_gap")), interval(s.get("up_rate_gap_ci95"))
    text = f"It forecasts UP in {predicted:.0%} of its readable answers; {actual:.0%} of the rows went UP"
    text += f" (gap {_points_of(predicted - actual if math.isnan(gap) else gap, ends)})"
    if ends is None:
        return f"{text}."
    if ends[0] <= 0 <= ends[1]:
        return f"{text}: the two agree within the error."
    return f"{text}: it says UP too {'often' if ends[0] > 0 else 'rarely'}."


def accuracy_statement(name: str, s: dict, majority: float, difference: tuple | None, split: str) -> str:
    """How often the model is right, beside a coin and the majority, and what the intervals let one say about it.

    majority: how often always forecasting the majority is right; NaN when not known. difference: model minus majority
    on the same rows as (value, interval), where the summary has it: a paired interval is the sharper test.
    """
    accuracy, ends = number(s.get("accuracy")), interval(s.get("accuracy_ci95"))
    if math.isnan(accuracy):
        return f"The summary has no accuracy for {name}."
    rows, days = number(s.get("n")), number(s.get("dates"))
    of = f"{rows:,.0f} {split} rows" if not math.isnan(rows) else f"the {split} rows"
    of += f" on {_count(int(days), 'day')}" if not math.isnan(days) else ""
    text = f"{name} is right in {accuracy:.0%} of {of}"
    text += f" (95% interval {ends[0]:.0%} to {ends[1]:.0%})" if ends else ""
    text += "; a coin is right in 50%"
    if ends is None:
        return f"{text}: without an interval, this says nothing about other days."
    against = {"a coin": (ends[0] - 0.5, ends[1] - 0.5)}
    if not math.isnan(majority):
        text += f", always forecasting the majority in {majority:.0%}"
        against["the majority"] = (ends[0] - majority, ends[1] - majority)
        if difference:
            text += f" (difference {_points_of(*difference)})"
            against["the majority"] = difference[1]
    better = [what for what, (low, _) in against.items() if low > 0]
    worse = [what for what, (_, high) in against.items() if high < 0]
    if worse:
        verdict = f"worse than {' and '.join(worse)}"
    elif len(better) < len(against):
        verdict = "no evidence of skill"
    else:
        verdict = f"better than {' and '.join(better)} on these dates. Read the audit and judge other dates before "
        verdict += "believing it"
    return f"{text}: {verdict}."


def _against_majority(summary: dict, name: str) -> tuple[float, tuple[float, float]] | None:
    """Accuracy of model `name` (its short name) minus the majority's, and the interval, where the summary has both."""
    short = short_of(mapping(summary, "models"))
    for entry in listed(summary, "differences"):
        if short.get(str(entry.get("model"))) == name and entry.get("against") == "majority":
            found = mapping(entry, "accuracy")
            change, ends = number(found.get("difference")), interval(found.get("ci95"))
            if not math.isnan(change) and ends:
                return change, ends
    return None


def _backtest_statement(s: dict, summary: dict) -> str:
    b = mapping(s, "backtest")
    total, sharpe, ends = number(b.get("total_return")), number(b.get("sharpe")), interval(b.get("sharpe_ci95"))
    if math.isnan(total):
        return ""
    cost = cost_of(summary, {"": s})
    text = f"Trading its forecasts {'' if cost is None else f'at costs of {cost:g} basis points '}returned {total:.1%}"
    held = number(mapping(summary, "buy_and_hold").get("total_return"))
    if not math.isnan(held):
        text += f", buying and holding {held:.1%}"
    if math.isnan(sharpe):
        return text + "."
    verdict = (
        "cannot be told from 0"
        if ends is None or ends[0] <= 0 <= ends[1]
        else f"is {'above' if ends[0] > 0 else 'below'} 0 on these dates"
    )
    return f"{text}; its Sharpe ratio of {minus(f'{sharpe:.2f}')}{_range_of(ends, 2)} {verdict}."


def cost_of(summary: dict, models: dict[str, dict]) -> float | None:
    """Costs of the backtest in basis points, from wherever the summary states them."""
    stated = [mapping(summary, "costs"), *(mapping(s, "backtest") for s in models.values())]
    return next((cost for b in stated if not math.isnan(cost := number(b.get("cost_bps")))), None)


# ------------------------------------------------------------------------------------------------- numbers as text


SPACE = "\u00a0"  # a space at which no line breaks: an interval stays whole


def minus(text: str) -> str:
    return text.replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return minus(f"{value:+.{digits}f}")


def _points(value: float) -> str:
    return minus(f"{100 * value:+.0f}")


def _points_of(value: float, ends: tuple[float, float] | None) -> str:
    between = f" [{_points(ends[0])},{SPACE}{_points(ends[1])}]" if ends else ""
    return f"{_points(value)}{SPACE}points{between}"


def _range(low: float, high: float, digits: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return minus(f"[{low:{sign}.{digits}f},{SPACE}{high:{sign}.{digits}f}]")


def _range_of(ends: tuple[float, float] | None, digits: int) -> str:
    return f" {_range(*ends, digits)}" if ends else ""


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _share(value: Any, ends: Any = None, digits: int = 0) -> str:
    value, ends = number(value), interval(ends)
    if math.isnan(value):
        return "–"
    between = f" [{ends[0]:.{digits}%},{SPACE}{ends[1]:.{digits}%}]" if ends else ""
    return minus(f"{value:.{digits}%}{between}")


def figure_of(value: Any, ends: Any = None, digits: int = 3) -> str:
    value, ends = number(value), interval(ends)
    return "–" if math.isnan(value) else minus(f"{value:.{digits}f}") + _range_of(ends, digits)


# ------------------------------------------------------------------------------------------------- tables


def forecaster_table(models: dict[str, dict], baselines: dict[str, dict]) -> Table:
    header = ["", "accuracy", "on UP days", "on DOWN days", "UP forecasts", "ROC-AUC", "Brier", "ECE", "readable"]
    rows = []
    for name, s in [*models.items(), *((f"{name} (baseline)", s) for name, s in baselines.items())]:
        rows.append(
            [
                name,
                _share(s.get("accuracy"), s.get("accuracy_ci95")),
                _share(s.get("up_accuracy")),
                _share(s.get("down_accuracy")),
                _share(s.get("predicted_up_rate")),
                figure_of(s.get("roc_auc"), s.get("roc_auc_ci95"), 2),
                figure_of(s.get("brier"), s.get("brier_ci95")),
                figure_of(s.get("ece")),
                _share(s.get("parse_rate")),
            ]
        )
    caption = "Models, and what needs no language model, on the same rows. Brackets are 95% intervals over days. "
    caption += "Brier score: squared error of the stated probability of UP. ECE: expected calibration error."
    return Table(caption, header, rows)


def reward_table(models: dict[str, dict]) -> list[Table]:
    names = list(dict.fromkeys(name for s in models.values() for name in mapping(s, "reward_components")))
    if not names:
        return []
    header = ["", *names, "total", "grounded evidence"]
    rows = [
        [
            model,
            *(figure_of(mapping(s, "reward_components").get(name)) for name in names),
            figure_of(s.get("reward_mean")),
            _share(s.get("grounded"), s.get("grounded_ci95")),
        ]
        for model, s in models.items()
    ]
    caption = (
        "Mean rewards on the judged rows, and the share of an answer's lines of evidence that its prompt bears out."
    )
    return [Table(caption, header, rows)]


def difference_table(summary: dict) -> list[Table]:
    short = short_of(mapping(summary, "models"))
    rows = []
    for entry in listed(summary, "differences"):
        pair = [short.get(str(entry.get(key)), str(entry.get(key))) for key in ("model", "against")]
        for what, found in entry.items():
            if not isinstance(found, dict):
                continue
            change, ends = number(found.get("difference")), interval(found.get("ci95"))
            if math.isnan(change):
                continue
            lower_is_better = what == "brier"
            if ends is None or ends[0] <= 0 <= ends[1]:
                verdict = "no clear difference"
            else:
                verdict = "better" if (ends[0] > 0) != lower_is_better else "worse"
            if what in ("accuracy", "grounded"):
                shown = _points_of(change, ends)
            else:
                shown = _signed(change, 3) + (f" {_range(*ends, 3, signed=True)}" if ends else "")
            rows.append([f"{pair[0]} − {pair[1]}", "Brier score" if what == "brier" else what, shown, verdict])
    caption = "Paired differences on the same rows, with 95% intervals over days."
    return [Table(caption, ["", "of", "difference", "reading"], rows)] if rows else []


def backtest_table(models: dict, baselines: dict, held: dict | None, cost: float | None) -> list[Table]:
    backtests = {name: mapping(s, "backtest") for name, s in models.items()}
    backtests |= {f"{name} (baseline)": mapping(s, "backtest") for name, s in baselines.items()}
    backtests = {name: b for name, b in backtests.items() if b} | ({"buy and hold": held} if held else {})
    if not backtests:
        return []
    header = ["", "return", "per year", "volatility", "Sharpe ratio", "deflated", "largest loss", "turnover", "held"]
    rows = [
        [
            name,
            _share(b.get("total_return"), digits=1),
            _share(b.get("annual_return"), digits=1),
            _share(b.get("annual_volatility"), digits=1),
            figure_of(b.get("sharpe"), b.get("sharpe_ci95"), 2),
            figure_of(b.get("deflated_sharpe"), digits=2),
            _share(b.get("max_drawdown"), digits=1),
            figure_of(b.get("turnover"), digits=1),
            _share(b.get("exposure")),
        ]
        for name, b in backtests.items()
    ]
    caption = "Backtest" + ("" if cost is None else f" at costs of {cost:g} basis points")
    caption += ". Volatility and Sharpe ratio are per year; deflated: the probability that the true Sharpe ratio is "
    caption += "above what the best of the strategies "
    caption += "tried shows by luck; turnover: times the capital is traded in a year."
    return [Table(caption, header, rows)]


def audit_tables(summary: dict) -> list[Table]:
    tables = []
    findings = listed(summary, "audit")
    if findings:
        verdicts: dict[bool | None, str] = {True: f"✓{SPACE}passed", False: f"✗{SPACE}failed"}
        rows = [
            [str(f.get("check")), str(f.get("split") or "–"), verdicts.get(f.get("passed"), "–"), str(f.get("message"))]
            for f in sorted(findings, key=lambda f: f.get("passed") is not False)
        ]
        tables.append(Table("Audit of the data.", ["check", "split", "", "finding"], rows))
    short = short_of(mapping(summary, "models"))
    rows = []
    for name, found in mapping(summary, "recall").items():
        found = found if isinstance(found, dict) else {"difference": found}
        change, ends = number(found.get("difference")), interval(found.get("ci95"))
        if math.isnan(change):
            continue
        shown = _points_of(change, ends)
        verdict = "part of the accuracy may be memory" if ends and ends[0] > 0 else "no clear difference"
        rows.append([short.get(name, str(name)), shown, verdict])
    if rows:
        caption = "Accuracy with the company's name and the calendar, minus accuracy without them."
        tables.append(Table(caption, ["", "difference", "reading"], rows))
    return tables


def market_table(market: dict) -> list[Table]:
    parts = {"all training answers": mapping(market, "overall"), "the last ones": mapping(market, "window")}
    parts = {name: part for name, part in parts.items() if part}
    if not parts:
        return []
    header = ["", "answers", "unreadable", "right", "on UP days", "on DOWN days", "UP forecasts", "went UP", "gap"]
    rows = []
    for name, part in parts.items():
        gap = number(part.get("gap"))
        rows.append(
            [
                name,
                figure_of(mapping(part, "examples").get("total"), digits=0),
                figure_of(mapping(part, "predictions").get("unreadable"), digits=0),
                *(_share(part.get(key)) for key in ("accuracy", "up_accuracy", "down_accuracy")),
                *(_share(part.get(key)) for key in ("predicted_up_rate", "actual_up_rate")),
                "–" if math.isnan(gap) else _points_of(gap, None),
            ]
        )
    return [Table("Forecasts against the market, in training. A gap near 0 means market adaptation.", header, rows)]


def milestone_table(milestone: dict) -> list[Table]:
    evaluations = listed(milestone, "evaluations")
    if not evaluations:
        return []
    names = ["reward", "accuracy", "coherence"]
    rows = [[f"step {e.get('step')}", *(figure_of(e.get(name), digits=2) for name in names)] for e in evaluations]
    thresholds = mapping(milestone, "thresholds")
    rows.append(["threshold", *(figure_of(thresholds.get(name), digits=2) for name in names)])
    return [Table("The milestone's evidence: validation means.", ["", *names], rows)]


def environment_table(environment: dict) -> Table | None:
    rows = [[str(k), str(v)] for k, v in environment.items() if k != "packages" and v is not None]
    rows += [[str(name), str(version)] for name, version in mapping(environment, "packages").items()]
    return Table("Machine and versions.", ["", ""], rows) if rows else None
