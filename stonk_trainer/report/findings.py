"""What the files of a run show, in sentences and tables. What their intervals do not show is not claimed.

A summary is that of an evaluation, with its models under the names that readers see (`renamed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stonk_trainer.evaluation.stats import Interval, interval_text
from stonk_trainer.report import canvas
from stonk_trainer.report.run_folder import Stage
from stonk_trainer.task import Table

SPACE = "\u00a0"  # a space at which no line breaks: an interval stays whole


def renamed(summary: dict, names: Mapping[str, str]) -> dict:
    """A summary whose models are called by other names; `names` has one for each model, in the order to show."""
    return summary | {
        "model": names.get(summary["model"]),
        "models": {names[name]: summary["models"][name] for name in names},
        "differences": [
            pair | {key: names.get(pair[key], pair[key]) for key in ("model", "against")}
            for pair in summary["differences"]
        ],
        "recall": {names[name]: found for name, found in summary.get("recall", {}).items() if name in names},
    }


# ------------------------------------------------------------------------------------------------- numbers as text


def minus(text: str) -> str:
    """`text` with the sign − for a minus."""
    return text.replace("-", "−")


def number(value: float | None, ends: Interval = None, digits: int = 3) -> str:
    """`0.266 [0.244 to 0.289]`; a dash where there is no value."""
    return "–" if value is None else minus(f"{value:.{digits}f}") + _between(ends, 1, digits)


def percent(value: float | None, ends: Interval = None, digits: int = 0) -> str:
    """`49% [39 to 59]` of a share; a dash where there is none."""
    return "–" if value is None else minus(f"{value:.{digits}%}") + _between(ends, 100, digits)


def _points(difference: float, ends: Interval) -> str:
    return minus(f"{100 * difference:+.0f}{SPACE}points") + _between(ends, 100, 0, "+")


def _between(ends: Interval, factor: float, digits: int, sign: str = "") -> str:
    return f" [{minus(interval_text(ends, factor, digits, sign)).replace(' ', SPACE)}]" if ends else ""


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _reading(ends: Interval, mark: float, above: str, below: str, unclear: str = "no clear difference") -> str:
    """What an interval shows about the side of `mark` on which the truth lies; `unclear` also where there is none."""
    if ends is None or ends[0] <= mark <= ends[1]:
        return unclear
    return above if ends[0] > mark else below


# ------------------------------------------------------------------------------------------------- a run


def stage_statements(stage: Stage) -> list[str]:
    """What the logs of a run show, in plain sentences."""
    sentences = []
    steps, loss = canvas.series(stage.metrics, "loss")
    if len(loss) and not stage.run_log:
        sentences.append(f"{_count(int(steps[-1]), 'step')}; the loss went from {loss[0]:.2f} to {loss[-1]:.2f}.")
    if stage.lines:
        count = len({line["step"] for line in stage.lines})
        text = f"{_count(len(stage.lines), 'answer')} over {_count(count, 'step')}"
        if stage.forecasts:
            readable = np.mean([line["direction"] is not None for line in stage.lines])
            text += f"; {readable:.0%} of them readable"
        sentences += [f"{text}.", trend(stage.lines, "total", "The total reward")]
    for key, text in (
        ("frac_reward_zero_std", "of the groups had no variance and taught nothing"),
        ("completions/clipped_ratio", "of the answers were cut off at the limit"),
    ):
        _, share = canvas.series(stage.metrics, key)
        if len(share):
            late = share[-max(1, len(share) // 4) :].mean()
            sentences.append(f"In the last quarter of the logged steps {late:.0%} {text}.")
    for key in ("loss", "grad_norm"):
        broken = sum(not math.isfinite(line[key]) for line in stage.metrics if line.get(key) is not None)
        if broken:
            sentences.append(f"Warning: {key} was not a finite number at {_count(broken, 'logged step')}.")
    if stage.milestone:
        sentences.append(f"The milestone was reached at step {stage.milestone['step']}.")
    elif outcome := stage.record.get("milestone"):
        sentences.append(f"The milestone was {outcome['reason']}.")
    if stage.record and not stage.record["ended"]:
        sentences.append("The run was interrupted, or is still going on.")
    return sentences


def trend(lines: Sequence[dict], key: str, subject: str) -> str:
    """How a column changed from the first to the last third of the steps, judged by a Welch interval over steps.

    Steps are the units, because answers to one prompt are alike. Fewer than 3 steps in a third give no interval.
    """
    from scipy.stats import ttest_ind

    _, at = np.unique(canvas.column(lines, "step"), return_inverse=True)
    means = np.bincount(at, canvas.column(lines, key)) / np.bincount(at)
    third = len(means) // 3
    if third < 1:
        return f"{subject} was {means.mean():.3f} on average; there are too few steps to judge a change."
    early, late = means[:third], means[-third:]
    text = f"{subject} was {early.mean():.3f} in the first third of the steps and {late.mean():.3f} in the last"
    if third < 3:
        return f"{text}; there are too few steps to judge whether that is chance."
    if not early.var() + late.var():
        return f"{text}."
    low, high = ttest_ind(late, early, equal_var=False).confidence_interval(0.95)
    verdict = _reading((low, high), 0, "it rose", "it fell", "no clear change")
    return f"{text}: {minus(f'{late.mean() - early.mean():+.3f}')}{_between((low, high), 1, 3, '+')}, {verdict}."


def data_table(record: dict) -> list[Table]:
    """What was read to make a run's rows, by split."""
    header = ["", "rows in the split", "after balancing", "drawn", "first day", "last day", "went UP", "not usable"]
    rows = []
    for split, data in record.get("data", {}).items():
        counts = [data[key] for key in ("rows_in_split", "rows_after_balancing", "rows_drawn")]
        dropped = ", ".join(f"{count:,} {why}" for why, count in data["dropped"].items() if count)
        cells = ["–" if count is None else f"{count:,}" for count in counts]
        rows.append([split, *cells, data["first"] or "–", data["last"] or "–", percent(data["share_up"], digits=1)])
        rows[-1].append(dropped or "–")
    return [Table("Data, by split; not usable: rows of the source, and why.", header, rows)] if rows else []


def market_table(market: dict) -> list[Table]:
    """Counts and shares of a run's forecasts beside the market's."""
    header = ["", "answers", "unreadable", "right", "on UP days", "on DOWN days", "UP forecasts", "went UP", "gap"]
    rows = []
    for name, key in (("all training answers", "overall"), ("the last ones", "window")):
        if part := market.get(key):
            shares = ("accuracy", "up_accuracy", "down_accuracy", "predicted_up_rate", "actual_up_rate")
            counts = f"{part['examples']['total']:,}", f"{part['predictions']['unreadable']:,}"
            gap = "–" if part["gap"] is None else _points(part["gap"], None)
            rows.append([name, *counts, *(percent(part[share]) for share in shares), gap])
    caption = "Forecasts against the market, in training. A gap near 0 means market adaptation."
    return [Table(caption, header, rows)] if rows else []


def milestone_table(milestone: dict) -> list[Table]:
    """The validation means by which a milestone was reached, and its thresholds."""
    if not milestone:
        return []
    thresholds = milestone["thresholds"]
    rows = [
        [f"step {found['step']}", *(number(found["means"][name], digits=2) for name in thresholds)]
        for found in milestone["evaluations"]
    ]
    rows.append(["threshold", *(number(threshold, digits=2) for threshold in thresholds.values())])
    return [Table("The milestone's evidence: validation means.", ["", *thresholds], rows)]


def environment_table(environment: dict) -> Table | None:
    """Machine, commit, seed and versions of a run."""
    values = {key: value for key, value in environment.items() if key != "packages" and value is not None}
    rows = [[name, str(value)] for name, value in (values | environment.get("packages", {})).items()]
    return Table("Machine and versions.", ["", ""], rows) if rows else None


# ------------------------------------------------------------------------------------------------- an evaluation


def answer_statements(summary: dict, name: str) -> list[str]:
    """What an evaluation of answers that forecast nothing shows about model `name`."""
    s = summary["models"][name]
    rows = _count(s["n"], f"{summary['split']} row")
    earned = number(s["reward_mean"], s["reward_mean_ci95"])
    return [f"{name} earns a total reward of {earned} on {rows}.", *_best_of(summary)]


def evaluation_statements(summary: dict, name: str) -> list[str]:
    """What an evaluation of forecasts shows about model `name`, in plain sentences that follow from the intervals."""
    s, prior = summary["models"][name], summary["baselines"].get("prior")
    pairs = [pair for pair in summary["differences"] if (pair["model"], pair["against"]) == (name, "majority")]
    sentences = [accuracy_statement(name, s, pairs[0]["accuracy"] if pairs else None, summary["split"])]
    if s["parse_rate"] < 0.995:
        sentences.append(f"{1 - s['parse_rate']:.0%} of its answers are unreadable; they count as wrong.")
    sentences += audit_statement(summary)
    sentences.append(_brier_statement(s, prior["brier"] if prior else math.inf))
    if s["roc_auc"] is not None:
        sentences.append(_auc_statement(s))
    if s["predicted_up_rate"] is not None:
        sentences.append(_balance_statement(s))
    sentences.append(_backtest_statement(s["backtest"], summary))
    return sentences + _best_of(summary)


def _best_of(summary: dict) -> list[str]:
    count = len(summary["models"])
    text = f"{count} models were judged on the same rows: the best of several always looks better than it is."
    return [text] if count > 1 else []


def audit_statement(summary: dict) -> list[str]:
    """One sentence when the audit of the data failed."""
    failed = sum(finding["passed"] is False for finding in summary.get("audit", []))
    text = f"The audit found {_count(failed, 'problem')}: no number here means anything until that is explained."
    return [text] if failed else []


def accuracy_statement(name: str, s: dict, difference: dict | None, split: str) -> str:
    """How often the model is right, beside chance and the majority, and what the intervals allow one to conclude.

    difference: the model's accuracy minus the majority's on the same rows, where the summary has it: a paired interval
    is the sharper test.
    """
    ends, majority = s["accuracy_ci95"], s["majority_accuracy"]
    text = f"{name} is right in {s['accuracy']:.0%} of {s['n']:,} {split} rows on {_count(s['dates'], 'day')}"
    if ends is None:
        return f"{text}; chance is 50%: without an interval, this says nothing about other days."
    text += f" (95% interval {ends[0]:.0%} to {ends[1]:.0%}); chance is 50%, and always forecasting the majority "
    text += f"is right in {majority:.0%}"
    against = {"chance": (ends[0] - 0.5, ends[1] - 0.5), "the majority": (ends[0] - majority, ends[1] - majority)}
    if difference and difference["ci95"]:
        against["the majority"] = difference["ci95"]
        text += f" (difference {_points(difference['difference'], difference['ci95'])})"
    better = [what for what, (low, _) in against.items() if low > 0]
    worse = [what for what, (_, high) in against.items() if high < 0]
    if worse:
        return f"{text}: worse than {' and '.join(worse)}."
    if len(better) < len(against):
        return f"{text}: no evidence of skill."
    return (
        f"{text}: better than {' and '.join(better)} on these dates. Read the audit and judge other dates before "
        "believing it."
    )


def _brier_statement(s: dict, prior: float) -> str:
    """prior: Brier score of always stating the training share of UP; infinite when not known."""
    mark, beside = 0.25, "always stating 50% scores 0.250"
    if prior < mark:
        mark, beside = prior, f"always stating the training share of UP scores {prior:.3f}"
    better, worse = "its probabilities are better than that", "its probabilities are worse than that"
    verdict = _reading(s["brier_ci95"], mark, worse, better)
    return f"Its Brier score is {number(s['brier'], s['brier_ci95'])} (lower is better); {beside}: {verdict}."


def _auc_statement(s: dict) -> str:
    better, worse = "it ranks days better than chance on these dates", "it ranks days worse than chance on these dates"
    verdict = _reading(s["roc_auc_ci95"], 0.5, better, worse, "its ranking of days cannot be told from chance")
    return f"Its ROC-AUC is {number(s['roc_auc'], s['roc_auc_ci95'], 2)}, and 0.50 is chance: {verdict}."


def _balance_statement(s: dict) -> str:
    ends = s["up_rate_gap_ci95"]
    often, rarely = ": it says UP too often", ": it says UP too rarely"
    verdict = _reading(ends, 0, often, rarely, ": the two agree within the error" if ends else "")
    return (
        f"It forecasts UP in {s['predicted_up_rate']:.0%} of its readable answers; {s['base_rate_up']:.0%} of the rows "
        f"went UP (gap {_points(s['up_rate_gap'], ends)}){verdict}."
    )


def _backtest_statement(backtest: dict, summary: dict) -> str:
    earned, held = (percent(b["total_return"], digits=1) for b in (backtest, summary["buy_and_hold"]))
    same_rows = ""
    if "always_up" in summary:  # evaluations of before it was judged lack it
        same_rows = f"; always UP on the same rows returned {percent(summary['always_up']['total_return'], digits=1)}"
    costs = f"{summary['costs']['cost_bps']:g} basis points"
    text = (
        f"Trading its forecasts at costs of {costs} returned {earned}, with {percent(backtest['exposure'])} of the "
        f"capital in the market on average{same_rows}; buying and holding, in the market every day, returned {held}"
    )
    if backtest["sharpe"] is None:
        return f"{text}."
    ends = backtest["sharpe_ci95"]
    verdict = _reading(ends, 0, "is above 0 on these dates", "is below 0 on these dates", "cannot be told from 0")
    return f"{text}; its Sharpe ratio of {number(backtest['sharpe'], ends, 2)} {verdict}."


def forecaster_table(summary: dict) -> Table:
    """The forecasts of models and baselines, a row each."""
    header = ["", "accuracy", "on UP days", "on DOWN days", "UP forecasts", "ROC-AUC", "Brier", "ECE", "readable"]
    rows = [
        [
            name,
            percent(s["accuracy"], s["accuracy_ci95"]),
            percent(s["up_accuracy"]),
            percent(s["down_accuracy"]),
            percent(s["predicted_up_rate"]),
            number(s["roc_auc"], s["roc_auc_ci95"], 2),
            number(s["brier"], s["brier_ci95"]),
            number(s["ece"]),
            percent(s["parse_rate"]),
        ]
        for name, s in _forecasters(summary).items()
    ]
    caption = "Models, and what needs no language model, on the same rows. Brackets are 95% intervals over days. "
    caption += "Brier score: squared error of the stated probability of UP. ECE: expected calibration error."
    return Table(caption, header, rows)


def _forecasters(summary: dict) -> dict[str, dict]:
    return summary["models"] | {f"{name} (baseline)": s for name, s in summary["baselines"].items()}


def reward_table(summary: dict) -> list[Table]:
    """Mean rewards of the models, with intervals, and the share of grounded evidence where answers have such lines."""
    models = {name: s for name, s in summary["models"].items() if "reward_mean" in s}
    if not models:
        return []
    names = list(next(iter(models.values()))["reward_components"])
    rows = [
        [
            model,
            *(number(s["reward_components"][name], s["reward_components_ci95"][name]) for name in names),
            number(s["reward_mean"], s["reward_mean_ci95"]),
        ]
        for model, s in models.items()
    ]
    header, caption = ["", *names, "total"], "Mean rewards on the judged rows. Brackets are 95% intervals."
    if all("grounded" in s for s in models.values()):
        header.append("grounded evidence")
        caption += " Grounded: the share of an answer's lines of evidence that its prompt bears out."
        for row, s in zip(rows, models.values(), strict=True):
            row.append(percent(s["grounded"], s["grounded_ci95"]))
    return [Table(caption, header, rows)]


def difference_table(summary: dict) -> list[Table]:
    """Every paired difference, with what its interval shows."""
    rows = []
    for pair in summary["differences"]:
        for what, found in pair.items():
            if what in ("model", "against"):
                continue
            change, ends = found["difference"], found["ci95"]
            above, below = ("worse", "better") if what == "brier" else ("better", "worse")
            verdict = _reading(ends, 0, above, below)
            shares = what in ("accuracy", "grounded")
            shown = _points(change, ends) if shares else minus(f"{change:+.3f}") + _between(ends, 1, 3, "+")
            name = {"brier": "Brier score", "grounded": "grounded evidence"}.get(what, what)
            rows.append([f"{pair['model']} − {pair['against']}", name, shown, verdict])
    caption = "Paired differences on the same rows, with 95% intervals."
    return [Table(caption, ["", "of", "difference", "reading"], rows)] if rows else []


def held_all_along(summary: dict) -> dict[str, dict]:
    """Results without a forecast to compare with: UP on the same rows, which older evaluations lack, and every day."""
    names = {"always_up": "always UP", "buy_and_hold": "buy and hold"}
    return {name: summary[key] for key, name in names.items() if key in summary}


def backtest_table(summary: dict) -> Table:
    """What trading on each forecaster would have earned, beside buying and holding."""
    header = ["", "return", "per year", "volatility", "Sharpe ratio", "deflated", "largest loss", "turnover", "held"]
    backtests = {name: s["backtest"] for name, s in _forecasters(summary).items()}
    rows = [
        [
            name,
            percent(b["total_return"], digits=1),
            percent(b["annual_return"], digits=1),
            percent(b["annual_volatility"], digits=1),
            number(b["sharpe"], b["sharpe_ci95"], 2),
            number(b["deflated_sharpe"], digits=2),
            percent(b["max_drawdown"], digits=1),
            number(b["turnover"], digits=1),
            percent(b["exposure"]),
        ]
        for name, b in (backtests | held_all_along(summary)).items()
    ]
    caption = (
        f"Backtest at costs of {summary['costs']['cost_bps']:g} basis points. Volatility and Sharpe ratio: per year. "
        "Deflated: the probability that the true Sharpe ratio is above what the best of the strategies tried shows by "
        "luck. Turnover: times the capital is traded in a year. Held: share of the capital in the market, on average. "
        "Always UP is in the market on the same rows as the forecasts, buy and hold every day. Fewer than 20 returns "
        "have no figures per year."
    )
    return Table(caption, header, rows)


def audit_tables(summary: dict) -> list[Table]:
    """The findings of the audit, failed ones first; and what the models seem to remember of the judged days."""
    tables = []
    if findings := summary.get("audit", []):
        verdicts = {True: f"✓{SPACE}passed", False: f"✗{SPACE}failed", None: "–"}
        rows = [
            [finding["check"], finding["split"], verdicts[finding["passed"]], finding["message"]]
            for finding in sorted(findings, key=lambda finding: finding["passed"] is not False)
        ]
        tables.append(Table("Audit of the data.", ["check", "split", "", "finding"], rows))
    rows = []
    for name, found in summary["recall"].items():
        verdict = _reading(found["ci95"], 0, "part of the accuracy may be memory", "no clear difference")
        rows.append([name, _points(found["difference"], found["ci95"]), verdict])
    if rows:
        caption = "Accuracy with the company's name and the calendar, minus accuracy without them."
        tables.append(Table(caption, ["", "difference", "reading"], rows))
    return tables
