"""The report on synthetic runs of the shape that training and evaluation leave."""

import base64
import html
import io
import json
import random
import re
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from stonk_trainer.errors import UserError
from stonk_trainer.report import canvas, evaluation_figures, findings, page, run_folder, training_figures
from stonk_trainer.task import DataSummary

pytestmark = pytest.mark.slow

REWARDS = ["accuracy", "magnitude", "data_usage", "coherence"]
WEIGHTS = [0.35, 0.15, 0.3, 0.2]
ENVIRONMENT = {"python": "3.11.9", "seed": 42, "commit": "abc123", "packages": {"trl": "1.16.0"}}


def completion_of(rng, direction, change):
    words = rng.choice(["The share", "It", "The stock"])
    verb = "rose" if change > 0 else "fell"
    return (
        f"<think>\n{words} {verb} {abs(change):.1f}% on the day and closed at $101.25. "
        f"The 20-day average is $98.40.\n</think>\nPrediction: {direction}\nExpected move: 1.1%\nConfidence: 58%"
    )


def evidence_of(completion):
    """A grounded line and a false one."""
    change = re.search(r"\d+\.\d+%", completion)[0]
    return [
        {"name": "1-day change", "value": f"+{change}", "side": "UP", "verdict": "grounded"},
        {"name": "20-day average", "value": "$98.40", "side": "DOWN", "verdict": "wrong value"},
    ]


def log_lines(completions, seed=0, start_step=1, per_step=8, group=4):
    rng = random.Random(seed)
    lines = []
    for i in range(completions):
        if i % group == 0:
            label, size = rng.choice(["UP", "DOWN"]), rng.uniform(0.001, 0.03)
            ticker, day = (
                rng.choice(["AAPL", "MSFT", "KO"]),
                f"20{rng.randint(10, 16)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}",
            )
        done = i / completions
        direction = rng.choices(["UP", "DOWN", None], [0.5 + 0.2 * done, 0.45 - 0.2 * done, 0.05])[0]
        text = completion_of(rng, direction, rng.uniform(-4, 4)) if direction else "I cannot say. " * rng.randint(1, 30)
        confidence = round(rng.uniform(0.5, 0.8), 2) if direction else None
        rewards = dict.fromkeys(REWARDS, 0.0)
        if direction:
            p = confidence if direction == "UP" else 1 - confidence
            rewards = {
                "accuracy": 1 - (p - (label == "UP")) ** 2,
                "magnitude": rng.random() * (direction == label),
                "data_usage": min(1.0, rng.random() * (0.5 + 0.5 * done)),
                "coherence": rng.choice([0.0, 0.5, 1.0]),
            }
        line = {
            "step": start_step + i // per_step,
            "ticker": ticker,
            "date": day,
            "label": label,
            "next_return": size if label == "UP" else -size,
            "direction": direction,
            "confidence": confidence,
            "move": 0.011 if direction else None,
        }
        line |= {
            "grounded": 0.5 if direction else 0.0,
            "evidence": evidence_of(text) if direction else [],
            "invented": ["9.9%"] if direction else [],
        }
        line |= rewards
        line |= {"total": sum(w * rewards[n] for w, n in zip(WEIGHTS, REWARDS, strict=True)), "completion": text}
        lines.append(line)
    return lines


def grpo_metrics(steps, seed=0, every=1):
    rng = random.Random(seed)
    lines = []
    for step in range(every, steps + 1, every):
        lines.append(
            {
                "step": step,
                "loss": rng.gauss(0, 0.01),
                "reward": 0.5,
                "kl": 0.002 * step * rng.uniform(0.8, 1.2),
                "grad_norm": rng.uniform(0.5, 2),
                "completions/mean_length": 70 + rng.gauss(0, 5),
                "completions/min_length": 40,
                "completions/max_length": 96,
                "completions/clipped_ratio": rng.uniform(0, 0.15),
                "frac_reward_zero_std": rng.choice([0, 0, 0.5]),
                "learning_rate": 1e-4,
            }
        )
        if step % (5 * every) == 0:
            means = {f"eval_rewards/{name}/mean": rng.uniform(0.4, 0.7) for name in REWARDS}
            lines.append({"step": step, "eval_reward": rng.uniform(0.45, 0.6), **means})
    return lines


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_recipe(folder, trainer, **values):
    recipe = "".join(f"{key}: {json.dumps(value)}\n" for key, value in {"task": "stocks", **values}.items())
    (folder / "recipe.yaml").write_text(f"# stonk {trainer} --config stocks/demo/{folder.name}\n{recipe}")


def write_record(folder, trainer, *, at="10:00:00", ended=True, **values):
    """run.json, as a run writes it."""
    record = {
        "command": f"stonk {trainer} --config stocks/demo/{folder.name}",
        "trainer": trainer,
        "task": "stocks",
        "stage": "supervised training" if trainer == "sft" else "reinforcement learning (GRPO) on balanced rows",
        "rewards": REWARDS if trainer == "grpo" else [],
        "model": "embedded:smollm2-135m",
        "started": f"2026-11-20 {at}",
        "ended": f"2026-11-20 {at}" if ended else None,
        "data": {"train": asdict(DataSummary(9000, 256, 8100, "2003-02-03", "2016-12-30", 0.521, {"without news": 3}))},
        "milestone": None,
        "environment": ENVIRONMENT,
    }
    (folder / "run.json").write_text(json.dumps(record | values))


def write_stage(folder, completions, *, natural=False, at="10:00:00", seed=0, metrics=True):
    folder.mkdir(parents=True)
    write_recipe(
        folder, "grpo", natural_distribution=natural, reward=REWARDS, max_completion_length=96, reward_weights=WEIGHTS
    )
    rows = "the market as it is" if natural else "balanced rows"
    outcome = {"reached": False, "reason": "not reached: validation reward 0.51; missing: reward above 0.8"}
    write_record(folder, "grpo", at=at, stage=f"reinforcement learning (GRPO) on {rows}", milestone=outcome)
    lines = log_lines(completions, seed)
    write_lines(folder / ("stage2_training_log.jsonl" if natural else "training_log.jsonl"), lines)
    steps = lines[-1]["step"]
    if metrics:
        write_lines(folder / "metrics.jsonl", grpo_metrics(steps, seed, max(1, steps // 40)))
    part = {
        "examples": {"total": completions, "up": completions // 2, "down": completions // 2},
        "predictions": {"up": 40, "down": 35, "unreadable": 5},
        "accuracy": 0.49,
        "up_accuracy": 0.6,
        "down_accuracy": 0.38,
        "actual_up_rate": 0.5,
        "predicted_up_rate": 0.61,
        "gap": 0.11,
    }
    (folder / "market_stats.json").write_text(
        json.dumps({"step": steps, "overall": part, "window": {"size": 40, **part}})
    )
    (folder / "training.log").write_text(f"2026-11-20 {at},100 INFO training: {steps} steps\n")


def write_warmup(folder, at="09:00:00"):
    folder.mkdir(parents=True)
    write_recipe(folder, "sft", max_length=512)
    write_record(folder, "sft", at=at)
    metrics = [
        {"step": step, "loss": 2 / step**0.5, "mean_token_accuracy": 1 - 0.4 / step**0.5, "learning_rate": 1e-3}
        for step in range(1, 33)
    ]
    write_lines(folder / "metrics.jsonl", metrics)
    (folder / "training.log").write_text(f"2026-11-20 {at},100 INFO training: 32 steps\n")


def backtest_of(rng, days, drift):
    equity = np.cumprod(1 + np.array([rng.gauss(drift, 0.012) for _ in days]))
    return {
        "dates": days,
        "equity": equity.tolist(),
        "total_return": equity[-1] - 1,
        "annual_return": 0.03,
        "annual_volatility": 0.19,
        "sharpe": 0.2,
        "sharpe_ci95": [-0.8, 1.1],
        "deflated_sharpe": 0.31,
        "max_drawdown": -0.22,
        "turnover": 110.0,
        "exposure": 0.9,
    }


def summary_of(seed, n=96, **changes):
    rng = random.Random(seed)
    days = [str(day) for day in np.arange("2019-01-10", "2022-10-01", dtype="datetime64[D]")[::14]]
    false = sorted(rng.random() for _ in range(18))
    summary = {
        "n": n,
        "dates": 92,
        "accuracy": 0.49,
        "accuracy_ci95": [0.39, 0.59],
        "up_accuracy": 0.73,
        "down_accuracy": 0.27,
        "base_rate_up": 0.469,
        "majority_accuracy": 0.469,
        "predicted_up_rate": 0.75,
        "up_rate_gap": 0.281,
        "up_rate_gap_ci95": [0.16, 0.4],
        "roc_auc": 0.51,
        "roc_auc_ci95": [0.4, 0.63],
        "brier": 0.266,
        "brier_ci95": [0.244, 0.289],
        "ece": 0.12,
        "parse_rate": 0.948,
        "reward_mean": 0.55,
        "reward_mean_ci95": [0.5, 0.6],
        "reward_components": {name: round(rng.uniform(0.3, 0.7), 3) for name in REWARDS},
        "reward_components_ci95": dict.fromkeys(REWARDS, [0.2, 0.8]),
        "grounded": 0.62,
        "grounded_ci95": [0.55, 0.7],
        "calibration": [
            {"p_up": p, "up": (up := rng.uniform(0.3, 0.6)), "n": rng.randint(4, 25), "ci95": [up - 0.15, up + 0.15]}
            for p in (0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
        ],
        "roc": {
            "false_positive_rate": [0, *false, 1],
            "true_positive_rate": [0, *sorted(min(1, f + rng.uniform(-0.05, 0.1)) for f in false), 1],
        },
        "market_adaptation": [
            {
                "period": f"{year}Q{quarter}",
                "n": rng.randint(3, 10),
                "predicted_up_rate": rng.uniform(0.5, 0.9),
                "actual_up_rate": rng.uniform(0.3, 0.7),
            }
            for year in (2019, 2020, 2021, 2022)
            for quarter in (1, 2, 3, 4)
        ],
        "backtest": backtest_of(rng, days, 0.001),
    }
    return summary | changes


def write_evaluation(folder, n=96, models=("warmup", "stage1", "stage2"), **changes):
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder, "eval", reward=REWARDS, reward_weights=WEIGHTS, split="test")
    names = [f"runs/demo/{model}/best_model" for model in models]
    summaries = {name: summary_of(seed, n) for seed, name in enumerate(names)}
    days = summary_of(0)["backtest"]["dates"]
    summaries[names[-1]] |= changes
    no_reward = {k: v for k, v in summary_of(9, n).items() if not k.startswith(("reward", "grounded"))}
    baselines = {
        "majority": {**no_reward, "accuracy": 0.469, "brier": 0.25, "roc_auc": 0.5},
        "prior": {**no_reward, "accuracy": 0.469, "brier": 0.251, "roc_auc": 0.5},
        "logistic": {**no_reward, "accuracy": 0.51},
        "lightgbm": {**no_reward, "accuracy": 0.5},
    }
    summary = {
        "command": "stonk eval --config stocks/demo/eval",
        "reward_weights": dict(zip(REWARDS, WEIGHTS, strict=True)),
        "split": "test",
        "model": names[-1],
        **summaries[names[-1]],
        "models": summaries,
        "baselines": baselines,
        "differences": [
            {
                "model": names[-1],
                "against": names[0],
                "accuracy": {"difference": -0.02, "ci95": [-0.1, 0.06]},
                "brier": {"difference": 0.02, "ci95": [0.005, 0.04]},
            }
        ],
        "always_up": backtest_of(random.Random(6), days, 0.0005),
        "buy_and_hold": backtest_of(random.Random(5), days, 0.0005),
        "costs": {"cost_bps": 5.0, "lag": 1},
        "audit": [
            {"check": "trivial rules", "split": "train", "passed": True, "message": "every rule within 50 ± 3%"},
            {"check": "split overlap", "split": "test", "passed": True, "message": "no date in two splits"},
        ],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    predictions = []
    for seed, name in enumerate(names):
        for line in log_lines(n, seed):
            rewards = {reward: line.pop(reward) for reward in REWARDS}
            del line["step"], line["total"]
            predictions.append({"model": name, **line, "base_rate_up": 0.53, "rewards": rewards})
    write_lines(folder / "predictions.jsonl", predictions)


def write_demo(folder, completions=80):
    """The folder that `make demo` leaves. The names of the stages are not in the order of time."""
    write_warmup(folder / "warmup")
    write_stage(folder / "stage1", completions, at="10:00:00", seed=1)
    write_stage(folder / "b_stage2", completions, natural=True, at="11:00:00", seed=2)
    write_evaluation(folder / "eval")
    return folder


# ------------------------------------------------------------------------------------------------- reading a page

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements of a page with their attributes, its text, and whether the tags close in the order they open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.balanced, self.words = [], [], True, []
        self.feed(text)
        self.balanced &= not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def make(run_dir, *flags):
    page.main([str(run_dir), *flags])
    out = run_dir / "report"
    return Page((out / "report.html").read_text()), out


def is_drawn(png):
    """More than a white sheet: some share of the pixels is dark, and not nearly all."""
    grey = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return 0.002 < (grey < 128).mean() < 0.5


@pytest.fixture(scope="module", autouse=True)
def small_figures():
    """Sixty dots per inch draw in two thirds of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "DPI", 60)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make(write_demo(tmp_path_factory.mktemp("runs") / "demo"))


# ------------------------------------------------------------------------------------------------- the page


def test_the_page_has_the_stages_in_order_of_time_and_then_the_evaluation(demo):
    page, _ = demo
    headings = re.findall(r"<h2 id=\"\d[^\"]+\">([^<]+)<", (demo[1] / "report.html").read_text())
    assert headings == ["warmup", "stage1", "b_stage2", "eval"]
    assert "supervised training" in page.text
    assert "reinforcement learning (GRPO) on balanced rows" in page.text
    assert "reinforcement learning (GRPO) on the market as it is" in page.text


def test_the_page_needs_no_other_file_and_no_network(demo):
    page, out = demo
    text = (out / "report.html").read_text()
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"} == set()
    for tag, attrs in page.elements:
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action"):
                assert value.startswith("data:image/png;base64," if tag == "img" else "#")
    assert re.findall(r"url\(|@import|https?:", re.sub(r"base64,[^\"]+", "", text)) == []
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_the_page_is_well_formed_and_its_anchors_lead_somewhere(demo):
    page, _ = demo
    assert page.balanced
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"].removeprefix("#") for attrs in page.all("a")]
    assert len(links) >= 4 and set(links) <= set(ids)


def test_each_figure_is_drawn_embedded_and_saved(demo):
    page, out = demo
    saved = {path.stem: path.read_bytes() for path in out.glob("*.png")}
    stage = ["rewards", "accuracy", "balance", "evidence", "kl", "length", "variance"]
    expected = {"warmup-loss", "eval-reliability", "eval-roc", "eval-equity", "eval-adaptation"}
    expected |= {f"{name}-{figure}" for name in ("stage1", "b_stage2") for figure in stage}
    assert set(saved) == expected
    assert [name for name, png in saved.items() if not is_drawn(png)] == []
    images = page.all("img")
    embedded = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    assert sorted(embedded) == sorted(saved.values())
    for image, png in zip(images, embedded, strict=True):
        assert len(image["alt"]) > 40
        assert (int(image["width"]), int(image["height"])) == Image.open(io.BytesIO(png)).size


def test_the_figures_tell_their_numbers_to_those_who_cannot_see_them(demo):
    alts = " ".join(image["alt"] for image in demo[0].all("img"))
    assert "loss over training steps, from 2.00 at the start to 0.35 at the end" in alts
    assert "stage2 has an area of 0.51 [0.40 to 0.63]" in alts


def test_the_evaluation_is_told_in_sentences_and_tables(demo):
    text = demo[0].text
    assert "stage2 is right in 49% of 96 test rows on 92 days (95% interval 39% to 59%)" in text
    assert "no evidence of skill" in text
    assert "says UP too often" in text
    assert "cannot be told from 0" in text
    assert "3 models were judged on the same rows" in text
    for words in ("lightgbm (baseline)", "buy and hold", "stage2 − warmup", "✓ passed", "trl"):
        assert words in text


def test_a_second_report_replaces_the_first_and_nothing_half_written_stays(tmp_path):
    write_stage(tmp_path / "run", 80, metrics=False)
    _, out = make(tmp_path / "run")
    names = sorted(path.name for path in out.iterdir())
    assert {name.rpartition(".")[2] for name in names} == {"html", "png"}
    write_lines(tmp_path / "run/training_log.jsonl", log_lines(40))
    page, out = make(tmp_path / "run")
    assert "40 answers over 5 steps" in page.text
    assert sorted(path.name for path in out.iterdir()) == names


def test_out_names_another_folder(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", "grpo")
    page.main([str(tmp_path / "run"), "--out", str(tmp_path / "there/page")])
    assert (tmp_path / "there/page/report.html").is_file() and not (tmp_path / "run/report").exists()
    assert "there/page/report.html" in capsys.readouterr().out


def test_a_long_run_makes_no_longer_a_page(tmp_path):
    write_stage(tmp_path / "short", 80, metrics=False)
    write_stage(tmp_path / "long", 2000, metrics=False)
    sizes = [(make(tmp_path / name)[1] / "report.html").stat().st_size for name in ("short", "long")]
    assert sizes[1] < 1.5 * sizes[0] < 3_000_000


# ------------------------------------------------------------------------------------------------- hostile text

HOSTILE = "</pre></section><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x {{ 7 * 7 }} "
HOSTILE += "\x00\x1b[31m\u202e\ud800"


def test_hostile_text_is_shown_and_never_run(tmp_path):
    run = tmp_path / "<script>run"
    write_stage(run / "stage1", 80, metrics=False)
    lines = log_lines(80)
    for line in lines:
        line["completion"] = HOSTILE + line["completion"]
        line["ticker"], line["date"] = "<script>t", "<b onclick=x>"
        line["evidence"] = [{"name": '"><script>', "value": "<svg onload=x>", "side": "<b>", "verdict": "<i>"}]
        line["invented"] = ["<script>"]
    write_lines(run / "stage1/training_log.jsonl", lines)
    (run / "stage1/training.log").write_text("<script>alert(3)</script>\n")
    write_evaluation(run / "eval", models=("<script>a$\\frac{1", "b</title>"))
    summary = json.loads((run / "eval/summary.json").read_text())
    summary["audit"] = [{"check": "<script>c", "split": "<i>", "passed": False, "message": HOSTILE}]
    (run / "eval/summary.json").write_text(json.dumps(summary))
    page, out = make(run)
    assert page.balanced
    assert {tag for tag, _ in page.elements} & {"script", "svg", "b", "i"} == set()
    assert [a for _, attrs in page.elements for a in attrs if a.startswith("on")] == []
    assert "<script>alert(1)</script>" in page.text  # as text
    assert "{{ 7 * 7 }}" in page.text
    raw = (out / "report.html").read_text()
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", raw)


# ------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_followed_by_its_evidence_with_verdicts(demo):
    page, out = demo
    assert {"grounded", "false"} <= {cell["class"] for cell in page.all("td") if "class" in cell}
    assert "✓ grounded" in page.text and "✗ wrong value" in page.text
    assert "Invented numbers in the thought: 9.9%." in page.text
    assert "62% [55 to 70]" in page.text.replace("\u00a0", " ")  # of the evaluation


def test_the_share_of_lines_is_drawn_over_steps_by_verdict(demo):
    page, out = demo
    assert list(out.glob("*-evidence.png"))
    assert any("share of grounded lines" in image["alt"] for image in page.all("img"))


def test_what_is_not_evidence_is_not_shown():
    whole = {"name": "Close", "value": "$1", "side": "UP", "verdict": "x"}
    assert training_figures.evidence_of({"evidence": ["nonsense", {"name": 5}, whole]}) == [whole]
    assert training_figures.evidence_of({"evidence": "a text"}) == training_figures.evidence_of({}) == []


def test_an_endless_answer_is_cut_and_the_page_says_so():
    line = {"completion": "x" * 1_000_000, "total": 1.0}
    (sample,) = page.choose_samples([line], [], False, seed=0)
    assert len(sample.text) == page.LONGEST_SHOWN
    assert sample.remarks == ["994,000 further characters are left out."]


def test_the_answers_shown_are_best_median_worst_and_unreadable_and_the_same_each_time():
    lines = log_lines(200, seed=4)
    chosen = page.choose_samples(lines, REWARDS, True, seed=0)
    assert [sample.chosen for sample in chosen] == [
        "best total reward",
        "median total reward",
        "worst total reward",
        "an unreadable one",
    ]
    totals = sorted(line["total"] for line in lines if line["direction"])
    shown = [float(re.search(r"total ([\d.]+)", sample.about)[1]) for sample in chosen]
    assert shown == pytest.approx([totals[-1], totals[len(totals) // 2], totals[0], 0], abs=0.006)
    assert chosen == page.choose_samples(lines, REWARDS, True, seed=0)


# ------------------------------------------------------------------------------------------------- what is missing


def test_a_run_without_evaluation_says_how_to_make_one(tmp_path):
    (tmp_path / "run/stage1/best_model").mkdir(parents=True)
    write_record(tmp_path / "run/stage1", "grpo")
    page, _ = make(tmp_path / "run")
    assert "There is no evaluation" in page.text
    assert (
        f"stonk eval --config RECIPE --models {tmp_path}/run/stage1/best_model --out {tmp_path}/run/eval" in page.text
    )


def test_a_run_that_ended_before_its_first_step_is_reported_as_that(tmp_path):
    write_recipe(tmp_path, "grpo")
    write_record(tmp_path, "grpo")
    (tmp_path / "training_log.jsonl").write_text("")
    (tmp_path / "metrics.jsonl").write_text("")
    page, out = make(tmp_path)
    assert "training_log.jsonl is empty: the run ended before its first answers were scored" in page.text
    assert "metrics.jsonl is empty" in page.text
    assert list(out.glob("*.png")) == []


def test_a_run_that_wrote_no_logs_says_how_to_make_them(tmp_path):
    write_record(tmp_path, "grpo", ended=False)
    page, _ = make(tmp_path)
    assert "training_log.jsonl is missing" in page.text and "metrics.jsonl is missing" in page.text
    assert f"start it again with stonk grpo --config stocks/demo/{tmp_path.name}" in page.text
    assert "The run was interrupted, or is still going on." in page.text


def test_logs_alone_are_a_run(tmp_path):
    write_stage(tmp_path / "run", 40)
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/recipe.yaml").unlink()
    page, _ = make(tmp_path / "run")
    assert "40 answers over 5 steps" in page.text
    assert "run.json is missing: which command made this run" in page.text and "recipe.yaml is missing" in page.text


def test_a_line_cut_off_by_a_crash_is_left_out_and_told(tmp_path):
    write_stage(tmp_path / "run", 40)
    path = tmp_path / "run/training_log.jsonl"
    path.write_text(path.read_text()[:-50])
    stage = run_folder.read_stage("run", tmp_path / "run")
    assert stage.lines == log_lines(40)[:39]
    assert stage.problems == ["The last line of training_log.jsonl is cut off, as a crash leaves it; it is skipped."]


def test_broken_lines_in_the_middle_are_counted_and_the_first_is_named(tmp_path):
    write_stage(tmp_path / "run", 40)
    path = tmp_path / "run/metrics.jsonl"
    path.write_text("nonsense\n[1]\n" + path.read_text())
    problems = run_folder.read_stage("run", tmp_path / "run").problems
    assert problems == ["metrics.jsonl: 2 invalid lines are skipped, the first is line 1."]


@pytest.mark.parametrize("content, problem", [("{", "is not valid"), ("[]", "lacks "), ('{"models": {}}', "lacks ")])
def test_a_broken_file_is_one_line_and_does_not_end_the_report(tmp_path, content, problem):
    files = ["summary.json", "market_stats.json", "milestone.json", "run.json"]
    for file in files:
        (tmp_path / file).write_text(content)
    page, _ = make(tmp_path)
    assert page.balanced
    assert [file for file in files if page.text.count(f"{file} {problem}") != 1] == []


def test_the_three_numbers_of_rows_are_told_apart_by_split(demo):
    cells = set(demo[0].words)
    assert {"rows in the split", "after balancing", "drawn", "not usable"} <= cells
    assert {"9,000", "8,100", "256", "2003-02-03", "2016-12-30", "52.1%", "3 without news"} <= cells


def test_the_evidence_of_a_milestone_is_a_table(tmp_path):
    write_stage(tmp_path / "run", 40)
    means = {"reward": 0.85, "humility": 0.9}
    evidence = {"step": 4, "thresholds": {"reward": 0.8, "humility": 0.7}}
    evidence["evaluations"] = [{"step": 4, "completions": 8, "means": means}]
    (tmp_path / "run/milestone.json").write_text(json.dumps(evidence))
    page, _ = make(tmp_path / "run")
    assert "The milestone was reached at step 4." in page.text and "humility" in page.text


# ------------------------------------------------------------------------------------------------- other tasks


def test_a_run_of_another_task_is_reported_without_forecasts_and_nothing_is_imported(tmp_path):
    """Its module does not exist."""
    write_stage(tmp_path / "run", 80)
    (tmp_path / "run/market_stats.json").unlink()
    stage = "reinforcement learning (GRPO)"
    write_record(tmp_path / "run", "grpo", task="my_task:MyTask", rewards=["humility"], stage=stage)
    kept = ("step", "total", "completion")
    lines = [{key: line[key] for key in kept} | {"humility": line["total"]} for line in log_lines(80)]
    lines[3]["humility"] = None  # it had nothing to say
    write_lines(tmp_path / "run/training_log.jsonl", lines)
    page, out = make(tmp_path / "run")
    assert "80 answers over 10 steps." in page.text and "Signs of gaming" not in page.text
    assert "median total reward" in page.text.lower() and "an unreadable one" not in page.text.lower()
    saved = {path.stem.removeprefix("run-") for path in out.glob("*.png")}
    assert saved == {"rewards", "kl", "length", "variance"}


def test_an_evaluation_of_answers_that_forecast_nothing_shows_rewards_and_differences(tmp_path):
    answers = {
        "n": 96,
        "reward_mean": 0.55,
        "reward_mean_ci95": [0.5, 0.6],
        "reward_components": {"humility": 0.4},
        "reward_components_ci95": {"humility": None},
    }
    difference = {"model": "b", "against": "a", "reward: humility": {"difference": 0.2, "ci95": [0.1, 0.3]}}
    summary = {"command": "stonk eval", "reward_weights": {"humility": 2.0}, "split": "test", "model": "b"}
    summary |= {"models": {"a": answers, "b": answers}, "differences": [difference]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    prediction = {"model": "b", "rewards": {"humility": 0.5}, "completion": "perhaps"}
    write_lines(tmp_path / "predictions.jsonl", [prediction])
    page, _ = make(tmp_path)
    text = page.text.replace("\u00a0", " ")
    assert "b earns a total reward of 0.550 [0.500 to 0.600] on 96 test rows." in text
    assert "2 models were judged on the same rows" in text
    assert {"b − a", "reward: humility", "+0.200 [+0.100\u00a0to\u00a0+0.300]", "better"} <= set(page.words)
    assert "humility 0.50 · total 1.00" in text


def test_a_run_evaluated_into_its_own_folder_has_both_sections(tmp_path):
    write_stage(tmp_path / "run", 40, metrics=False)
    write_evaluation(tmp_path / "run", models=("run",))
    page, _ = make(tmp_path / "run")
    assert "40 answers over 5 steps" in page.text and "run is right in 49%" in page.text
    assert "the run's own is lost" in page.text


def test_baselines_without_a_model_are_a_report_too(tmp_path):
    write_evaluation(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for key in summary.pop("models").popitem()[1]:
        summary.pop(key, None)  # those of the last model
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "model": None, "models": {}, "differences": []}))
    page, out = make(tmp_path)
    assert "lightgbm (baseline)" in page.text and "No model was judged" in page.text
    assert (out / f"{tmp_path.name}-equity.png").is_file()


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda path: None, "not found"),
        (lambda path: path.write_text(""), "is a file"),
        (
            lambda path: path.mkdir(),
            "holds no run: looked there and in its folders for run.json, metrics.jsonl",
        ),
        (lambda path: (path / "best_model").mkdir(parents=True), "holds no run"),
    ],
)
def test_what_is_no_run_ends_with_one_line(tmp_path, capsys, prepare, words):
    prepare(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        page.main([str(tmp_path / "run")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and str(tmp_path / "run") in line


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", "grpo")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        page.write_report(tmp_path / "run", tmp_path / "file")


# ------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    "ends, majority, difference, words",
    [
        ([0.39, 0.59], 0.47, None, "no evidence of skill"),
        ([0.51, 0.59], 0.53, None, "no evidence of skill"),  # above chance, not above the majority
        ([0.54, 0.62], 0.53, None, "better than chance and the majority on these dates. Read the audit"),
        ([0.54, 0.62], 0.53, {"difference": 0.05, "ci95": [-0.01, 0.11]}, "no evidence of skill"),  # paired
        ([0.51, 0.65], 0.53, {"difference": 0.05, "ci95": [0.01, 0.09]}, "better than chance and the majority"),
        ([0.40, 0.49], 0.53, None, "worse than chance and the majority"),
        ([0.44, 0.52], 0.53, None, "worse than the majority"),
        ([0.44, 0.49], 0.47, None, "worse than chance."),
        (None, 0.53, None, "says nothing about other days"),
    ],
)
def test_what_is_said_of_an_accuracy_follows_from_the_intervals(ends, majority, difference, words):
    s = {"n": 96, "dates": 92, "accuracy": 0.5, "accuracy_ci95": ends, "majority_accuracy": majority}
    sentence = findings.accuracy_statement("m", s, difference, "test")
    assert words in sentence
    if "better" not in words:
        assert "better" not in sentence


def test_a_paired_difference_to_the_majority_is_found_and_used(tmp_path):
    write_evaluation(tmp_path / "eval", accuracy_ci95=[0.54, 0.6], accuracy=0.57)
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    against = {"accuracy": {"difference": 0.1, "ci95": [-0.02, 0.2]}}
    summary["differences"].append({"model": summary["model"], "against": "majority", **against})
    section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary))
    assert "(difference +10\u00a0points [−2\u00a0to\u00a0+20]): no evidence of skill" in section.statements[0]


def test_a_failed_audit_stands_beside_the_headline_and_first_in_its_table(tmp_path):
    write_evaluation(tmp_path / "eval")
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    summary["audit"].append({"check": "future", "split": "test", "passed": False, "message": "a leak"})
    section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary))
    assert any("The audit found 1 problem" in sentence for sentence in section.statements)
    (audit,) = [table for table in section.tables if table.caption.startswith("Audit")]
    assert audit.rows[0] == ["future", "test", "✗\u00a0failed", "a leak"]


def test_differences_are_read_with_the_sense_of_each_measure(tmp_path):
    write_evaluation(tmp_path / "eval")
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary))
    (table,) = [table for table in section.tables if table.caption.startswith("Paired")]
    assert [row[-1] for row in table.rows] == ["no clear difference", "worse"]  # a higher Brier score is worse


def trend_of(slope, noise, steps=60):
    rng = random.Random(3)
    lines = [
        {"step": step, "total": 0.5 + slope * step / steps + rng.gauss(0, noise)}
        for step in range(1, steps + 1)
        for _ in range(8)
    ]
    return findings.trend(lines, "total", "the total reward")


def test_a_reward_that_rises_is_told_from_one_that_only_wavers():
    assert "it rose" in trend_of(0.2, 0.1)
    assert "it fell" in trend_of(-0.2, 0.1)
    assert "no clear change" in trend_of(0.0, 0.1)
    assert "too few steps" in trend_of(0.2, 0.1, steps=6)


def test_one_step_of_many_answers_is_no_trend():
    """Answers of one step share the model: their number must not make a change sure."""
    lines = [{"step": 1 + i // 1000, "total": 0.4 + 0.2 * (i // 1000)} for i in range(3000)]
    assert "too few steps" in findings.trend(lines, "total", "the total reward")


def test_false_alarms_of_the_trend_are_rare():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        lines = [{"step": step, "total": float(v)} for step, v in enumerate(rng.normal(0.5, 0.1, 30))]
        alarms += "no clear change" not in findings.trend(lines, "total", "x")
    assert alarms / 300 < 0.09  # 5% and three standard errors


def test_a_log_in_which_all_forecasts_say_up_is_warned_of_at_the_head_of_the_page(tmp_path):
    write_stage(tmp_path / "run", 240, metrics=False)
    lines = log_lines(240)
    for line in lines:
        line["direction"] = "UP"
        line["completion"] = line["completion"].replace("Prediction: DOWN", "Prediction: UP")
    write_lines(tmp_path / "run/training_log.jsonl", lines)
    page, _ = make(tmp_path / "run")
    assert "Warning: one direction only" in page.text.partition("In short")[2].partition("Missing here")[0]


def test_a_loss_that_is_not_finite_is_told(tmp_path):
    write_warmup(tmp_path / "run")
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 33, "loss": NaN}\n')
    page, _ = make(tmp_path / "run")
    assert "Warning: loss was not a finite number at 1 logged step." in page.text


# ------------------------------------------------------------------------------------------------- figures


def test_figures_without_data_are_none():
    assert training_figures.rewards([], [], REWARDS) is None and training_figures.evidence([]) is None
    assert training_figures.direction_accuracy([]) is None and training_figures.direction_balance([], 10) is None
    of_metrics = ("sft_loss", "kl", "lengths", "variance")
    assert [getattr(training_figures, name)([]) for name in of_metrics] == [None] * 4
    assert evaluation_figures.roc({"m": {"roc": None}}, {}) is None  # all days went one way


@pytest.mark.parametrize("completions", [1, 9])
def test_a_run_of_a_few_answers_can_be_drawn(completions):
    lines = log_lines(completions, seed=6)
    drawn = [training_figures.rewards(lines, [], REWARDS), training_figures.direction_accuracy(lines)]
    assert all(is_drawn(figure.png) for figure in drawn)


def test_step_bins_keep_whole_steps_together_in_order():
    step_N = np.repeat(np.arange(1, 101), 3)
    bin_N, middle = canvas.step_bins(step_N, 40)
    assert len(middle) == 40 and (np.diff(middle) > 0).all()
    assert all(len(set(bin_N[step_N == step])) == 1 for step in range(1, 101))
    bin_N, middle = canvas.step_bins(np.array([5.0, 2.0, 5.0]), 40)
    assert bin_N.tolist() == [1, 0, 1] and middle.tolist() == [2, 5]


def test_a_metric_logged_twice_for_a_step_counts_once_and_gaps_are_left_out():
    lines = [{"step": 1, "kl": 9.0}, {"step": 2, "kl": None}, {"step": 1, "kl": 0.5}, {"step": 3, "kl": 0.7}]
    lines.append({"step": 4})
    steps, values = canvas.series(lines, "kl")
    assert steps.tolist() == [1, 3] and values.tolist() == [0.5, 0.7]


def test_the_equity_axis_is_logarithmic_only_when_values_span_much():
    def draw(factor):
        days = ["2020-01-01", "2020-01-02", "2020-01-03"]
        backtest = {"dates": days, "equity": [1, 1.1, factor]}
        return evaluation_figures.equity({"m": {"backtest": backtest}}, {"dates": days, "equity": [1, 1, 1]}, 5.0)

    assert "ends at 1.20" in draw(1.2).alt and "5 basis points" in draw(1.2).caption
    assert "logarithmic" not in draw(1.2).caption and "logarithmic" in draw(9).caption
    assert "logarithmic" not in draw(0).caption  # the loss of all has no logarithm


def test_the_page_escapes_what_it_is_given(tmp_path):
    section = page.Section("<t>", "k", "s", statements=["a < b & c"], problems=["`<p>` <p>"])
    section.anchor = "1-t"
    text = page.render(tmp_path, [section], "<x>")
    assert "<code>&lt;p&gt;</code> &lt;p&gt;" in text
    assert html.escape("a < b & c") in text and "<t>" not in text and "<x>" not in text


def test_the_evaluation_of_a_gpt_is_shown_with_its_chart_and_its_own_command_is_named(tmp_path):
    from PIL import Image

    runs = tmp_path / "btc"
    (runs / "rl").mkdir(parents=True)
    write_record(runs / "rl", "grpo", task="btc")
    written, _ = page.write_report(runs, tmp_path / "before")
    assert "judge a GPT with" in written.read_text() and "stonk forecast --evaluate true" in written.read_text()

    (runs / "forecast").mkdir()
    score = {"value": 1.9, "ci95": [1.8, 2.0]}
    scores = {"garch-t": {"crps": score, "difference": None, "coverage": {"90": {"value": 0.88, "ci95": None}}}}
    scores |= {"rl": scores["garch-t"] | {"difference": {"value": 0.05, "ci95": [-0.01, 0.1]}}}
    judged = {"reference": "garch-t", "horizons": [{"days": 1, "origins": 381, "scores": scores}]}
    content = {"series": "BTC", "models": {"rl": str(runs / "rl/best_model")}, "judgement": judged}
    (runs / "forecast/evaluation.json").write_text(json.dumps(content))
    Image.new("RGB", (40, 30)).save(runs / "forecast/fan.png")
    written, count = page.write_report(runs, tmp_path / "after")
    text = written.read_text()
    assert "There is no evaluation" not in text and "0.050 [-0.010 to 0.100]" in text and count == 1
    (runs / "forecast/evaluation.json").write_text("{")
    assert "cannot be read" in page.write_report(runs, tmp_path / "cut")[0].read_text()


def test_an_evaluation_of_before_always_up_was_judged_is_still_shown(tmp_path):
    write_evaluation(tmp_path / "eval")
    path = tmp_path / "eval/summary.json"
    summary = json.loads(path.read_text())
    del summary["always_up"]
    path.write_text(json.dumps(summary))
    text = page.write_report(tmp_path, tmp_path / "report")[0].read_text()
    assert "buy and hold" in text and "always UP on the same rows" not in text
