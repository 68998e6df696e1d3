"""The report on synthetic runs of the shape that training and evaluation leave."""

import base64
import html
import io
import json
import math
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from stonk_trainer.errors import UserError
from stonk_trainer.report import figures, findings, page, run_folder

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


def log_lines(completions, seed=0, old=False, start_step=1, per_step=8, group=4):
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
        if old:
            line |= {"grounded_claims": 1, "claims": [{"start": 0, "end": 3, "grounded": True, "fact": "close"}]}
        else:
            evidence = evidence_of(text) if direction else []
            line |= {
                "grounded": 0.5 if direction else 0.0,
                "evidence": evidence,
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
    command = f"stonk {trainer} --config stocks/demo/{folder.name}"
    (folder / "recipe.yaml").write_text(f"# stonk {trainer}, as resolved from: {command}\n{recipe}")
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))


def write_stage(folder, completions, *, natural=False, at="10:00:00", seed=0, metrics=True, **log):
    folder.mkdir(parents=True)
    write_recipe(
        folder, "grpo", natural_distribution=natural, reward=REWARDS, max_completion_length=96, reward_weights=WEIGHTS
    )
    lines = log_lines(completions, seed, **log)
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
    (folder / "training.log").write_text(
        f"2026-11-20 {at},100 INFO training: {steps} steps\n2026-11-20 {at},200 INFO milestone not reached\n"
    )


def write_warmup(folder, at="09:00:00"):
    folder.mkdir(parents=True)
    write_recipe(folder, "sft", max_length=512)
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
        "reward_components": {name: round(rng.uniform(0.3, 0.7), 3) for name in REWARDS},
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


DRAWN = {"calibration", "roc", "backtest", "market_adaptation"}


def write_evaluation(folder, n=96, models=("warmup", "stage1", "stage2"), curves=True, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder, "eval", reward=REWARDS, reward_weights=WEIGHTS, split="test")
    names = [f"runs/demo/{model}/best_model" for model in models]
    summaries = {name: summary_of(seed, n) for seed, name in enumerate(names)}
    days = summary_of(0)["backtest"]["dates"]
    if not curves:
        summaries = {name: {k: v for k, v in s.items() if k not in DRAWN} for name, s in summaries.items()}
    summaries[names[-1]] |= changes
    dropped = {"reward_mean", "reward_components", *(set() if curves else DRAWN)}
    no_reward = {k: v for k, v in summary_of(9, n).items() if k not in dropped}
    baselines = {
        "majority": {**no_reward, "accuracy": 0.469, "brier": 0.25, "roc_auc": 0.5},
        "prior": {**no_reward, "accuracy": 0.469, "brier": 0.251, "roc_auc": 0.5},
        "logistic": {**no_reward, "accuracy": 0.51},
        "lightgbm": {**no_reward, "accuracy": 0.5},
    }
    summary = {
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
        patch.setattr(figures, "DPI", 60)
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
    assert "stage2 has an area of 0.51 [0.40, 0.63]" in alts


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
    write_recipe(tmp_path / "run", "grpo")
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


def test_no_sign_of_a_completion_is_lost_or_moved_by_making_it_printable():
    text = "a\x00\u202e\ud800b\n\tc"
    assert page.printable(text) == "a���b\n\tc"


# ------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_followed_by_its_evidence_with_verdicts(demo):
    page, out = demo
    assert {"grounded", "false"} <= {cell["class"] for cell in page.all("td") if "class" in cell}
    assert "✓ grounded" in page.text and "✗ wrong value" in page.text
    assert "Invented numbers in the thought: 9.9%." in page.text
    assert "62% [55%, 70%]" in page.text.replace("\u00a0", " ")  # of the evaluation


def test_the_share_of_lines_is_drawn_over_steps_by_verdict(demo):
    page, out = demo
    assert list(out.glob("*-evidence.png"))
    assert any("share of grounded lines" in image["alt"] for image in page.all("img"))


def test_what_is_not_evidence_is_left_out():
    rows = page.evidence_rows(["nonsense", {"name": 5}, {"name": "Close", "value": "$1", "side": "UP", "verdict": "x"}])
    assert rows == [
        {"name": "5", "value": "", "side": "", "verdict": ""},
        {"name": "Close", "value": "$1", "side": "UP", "verdict": "x"},
    ]
    assert page.evidence_rows(None) == []


def test_the_claims_of_an_old_log_are_left_out_in_one_line(tmp_path):
    write_stage(tmp_path / "run", 40, metrics=False)
    log = next((tmp_path / "run").glob("*training_log.jsonl"))
    write_lines(log, log_lines(40, old=True))
    page, _ = make(tmp_path / "run")
    assert page.text.count("read claims from prose: they are left out") == 1
    assert "40 answers over 5 steps" in page.text


def test_an_endless_answer_is_cut_and_the_page_says_so():
    line = {"completion": "x" * 1_000_000, "total": 1.0}
    (sample,) = page.choose_samples([line], [], seed=0)
    assert len(sample.text) == page.LONGEST_SHOWN
    assert sample.remarks == ["994,000 further characters are left out."]


def test_the_answers_shown_are_best_median_worst_and_unreadable_and_the_same_each_time():
    lines = log_lines(200, seed=4)
    chosen = page.choose_samples(lines, REWARDS, seed=0)
    assert [sample.chosen for sample in chosen] == [
        "best total reward",
        "median total reward",
        "worst total reward",
        "an unreadable one",
    ]
    totals = sorted(line["total"] for line in lines if line["direction"])
    shown = [float(re.search(r"total ([\d.]+)", sample.about)[1]) for sample in chosen]
    assert shown == pytest.approx([totals[-1], totals[len(totals) // 2], totals[0], 0], abs=0.006)
    assert chosen == page.choose_samples(lines, REWARDS, seed=0)


# ------------------------------------------------------------------------------------------------- what is missing


def test_a_run_without_evaluation_says_how_to_make_one(tmp_path):
    (tmp_path / "run/stage1/best_model").mkdir(parents=True)
    write_recipe(tmp_path / "run/stage1", "grpo")
    page, _ = make(tmp_path / "run")
    assert "There is no evaluation" in page.text
    assert (
        f"stonk eval --config RECIPE --models {tmp_path}/run/stage1/best_model --out {tmp_path}/run/eval" in page.text
    )


def test_a_run_that_ended_before_its_first_step_is_reported_as_that(tmp_path):
    write_recipe(tmp_path, "grpo", reward=REWARDS)
    (tmp_path / "training_log.jsonl").write_text("")
    (tmp_path / "metrics.jsonl").write_text("")
    page, out = make(tmp_path)
    assert "training_log.jsonl is empty: the run ended before its first answers were scored" in page.text
    assert "metrics.jsonl is empty" in page.text
    assert list(out.glob("*.png")) == []


def test_a_recipe_alone_is_a_run_without_logs(tmp_path):
    write_recipe(tmp_path, "grpo")
    page, _ = make(tmp_path)
    assert "training_log.jsonl is missing" in page.text and "metrics.jsonl is missing" in page.text
    assert f"start it again with stonk grpo --config stocks/demo/{tmp_path.name}" in page.text


def test_a_line_cut_off_by_a_crash_is_left_out_and_told(tmp_path):
    write_stage(tmp_path / "run", 40)
    path = tmp_path / "run/training_log.jsonl"
    path.write_text(path.read_text()[:-50])
    stage = run_folder.read_stage("run", tmp_path / "run")
    assert stage.lines == log_lines(40)[:39]
    assert stage.problems == ["The last line of training_log.jsonl is cut off, as a crash leaves it; it is left out."]


def test_broken_lines_in_the_middle_are_counted_and_the_first_is_named(tmp_path):
    problems = []
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\nnonsense\n[1]\n\xff\xfe\n\n{"step": 2}\n')
    assert run_folder.read_jsonl(tmp_path / "log.jsonl", problems) == [{"step": 1}, {"step": 2}]
    assert problems == ["log.jsonl: 3 lines, the first is line 2, cannot be read and are left out."]


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"models": 3, "overall": "x", "packages": 1}', "[" * 1_500])
def test_a_broken_file_is_told_and_does_not_end_the_report(tmp_path, content):
    files = ["summary.json", "market_stats.json", "milestone.json", "environment.json", "recipe.yaml"]
    for file in files:
        (tmp_path / file).write_text(content)
    page, _ = make(tmp_path)
    assert page.balanced
    if "models" not in content:
        missing = page.text.partition("Missing here")[2]
        assert [file for file in files if f"{file} is not" not in missing and f"{file} does" not in missing] == []


def test_values_of_any_kind_in_the_logs_do_not_end_the_report(tmp_path):
    rng = random.Random(0)
    strange = [None, math.nan, math.inf, -math.inf, True, "x", "", [], {}, [1, "a"], {"a": None}, 10**400, -1, "UP"]
    write_stage(tmp_path / "run", 60)
    for name, lines in (("training_log", log_lines(60)), ("metrics", grpo_metrics(8))):
        for line in lines:
            for key in rng.sample(sorted(line), 3):
                line[key] = rng.choice(strange)
            if rng.random() < 0.2:
                del line[rng.choice(sorted(line))]
        write_lines(tmp_path / f"run/{name}.jsonl", lines)
    page, _ = make(tmp_path / "run")
    assert page.balanced and "60 answers" in page.text


STRANGE = [None, math.nan, math.inf, "x", [], {}, [None, None], [1, "a"], [{"a": None}], {"a": {"b": 1}}, -1, True]


@pytest.mark.parametrize(
    "key", ["models", "baselines", "differences", "buy_and_hold", "audit", "costs", "recall", "model", "split"]
)
def test_any_part_of_the_summary_may_be_broken(tmp_path, key):
    write_evaluation(tmp_path, curves=False)
    whole = json.loads((tmp_path / "summary.json").read_text())
    summaries = [{**whole, key: value} for value in STRANGE]
    sections = [page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary)) for summary in summaries]
    made = Page(page.render(tmp_path, sections, None))
    assert made.balanced and len(made.all("section")) >= len(STRANGE)


@pytest.mark.parametrize("seed", range(3))
def test_any_metric_of_a_model_may_be_broken(tmp_path, seed):
    write_evaluation(tmp_path, models=("m",))
    whole = json.loads((tmp_path / "summary.json").read_text())
    rng = random.Random(seed)
    for curves in (False, True):
        for _ in range(1 if curves else 10):
            s = json.loads(json.dumps(whole["models"]["runs/demo/m/best_model"]))
            for name in DRAWN:
                for part in [s[name]] if isinstance(s[name], dict) else s[name]:
                    part[rng.choice(sorted(part))] = rng.choice(STRANGE)
            for key in [key for key in s if rng.random() < 0.3 or (not curves and key in DRAWN)]:
                s[key] = rng.choice(STRANGE)
            section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, {**whole, "models": {"m": s}}))
            made = Page(page.render(tmp_path, [section], None))
            assert made.balanced
            assert not re.search(r"\bnan\b", made.text)


def test_an_older_summary_is_reported_as_far_as_it_goes(tmp_path):
    keys = "n dates accuracy accuracy_ci95 up_accuracy down_accuracy base_rate_up majority_accuracy".split()
    keys += [
        "predicted_up_rate",
        "roc_auc",
        "brier",
        "parse_rate",
        "reward_mean",
        "reward_components",
    ]
    old = {key: value for key, value in summary_of(0).items() if key in keys}
    (tmp_path / "summary.json").write_text(json.dumps({"split": "test", "model": "runs/stage2/best_model", **old}))
    page, out = make(tmp_path)
    assert "stage2 is right in 49% of 96 test rows" in page.text and "in 47%" in page.text
    assert "The summary has no backtest" in page.text and "The summary has no calibration" in page.text
    assert "predictions.jsonl is missing" in page.text
    assert list(out.glob("*.png")) == []


def test_a_run_evaluated_into_its_own_folder_has_both_sections(tmp_path):
    write_stage(tmp_path / "run", 40, metrics=False)
    write_evaluation(tmp_path / "run", models=("run",), curves=False)
    page, _ = make(tmp_path / "run")
    assert "40 answers over 5 steps" in page.text and "run is right in 49%" in page.text
    assert "the run's own is lost" in page.text


def test_baselines_without_a_model_are_a_report_too(tmp_path):
    write_evaluation(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary = {key: summary[key] for key in ("split", "baselines", "buy_and_hold", "costs")}
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
            "holds no run: looked there and in its folders for recipe.yaml, training_log.jsonl",
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
    write_recipe(tmp_path / "run", "grpo")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        page.write_report(tmp_path / "run", tmp_path / "file")


# ------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    "ends, majority, difference, words",
    [
        ([0.39, 0.59], 0.47, None, "no evidence of skill"),
        ([0.51, 0.59], 0.53, None, "no evidence of skill"),  # above the coin, not above the majority
        ([0.54, 0.62], 0.53, None, "better than a coin and the majority on these dates. Read the audit"),
        ([0.54, 0.62], 0.53, (0.05, (-0.01, 0.11)), "no evidence of skill"),  # the paired interval decides
        ([0.51, 0.65], 0.53, (0.05, (0.01, 0.09)), "better than a coin and the majority"),
        ([0.40, 0.49], 0.53, None, "worse than a coin and the majority"),
        ([0.44, 0.52], 0.53, None, "worse than the majority"),
        ([0.44, 0.49], math.nan, None, "worse than a coin."),
        (None, 0.53, None, "says nothing about other days"),
    ],
)
def test_what_is_said_of_an_accuracy_follows_from_the_intervals(ends, majority, difference, words):
    s = {"n": 96, "dates": 92, "accuracy": 0.5, "accuracy_ci95": ends}
    sentence = findings.accuracy_statement("m", s, majority, difference, "test")
    assert words in sentence
    if "better" not in words:
        assert "better" not in sentence


def test_a_paired_difference_to_the_majority_is_found_and_used(tmp_path):
    write_evaluation(tmp_path / "eval", curves=False, accuracy_ci95=[0.54, 0.6], accuracy=0.57)
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    against = {"accuracy": {"difference": 0.1, "ci95": [-0.02, 0.2]}}
    summary["differences"].append({"model": summary["model"], "against": "majority", **against})
    section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary))
    assert "(difference +10\u00a0points [−2,\u00a0+20]): no evidence of skill" in section.statements[0]


def test_a_failed_audit_stands_beside_the_headline_and_first_in_its_table(tmp_path):
    write_evaluation(tmp_path / "eval", curves=False)
    summary = json.loads((tmp_path / "eval/summary.json").read_text())
    summary["audit"].append({"check": "future", "split": "test", "passed": False, "message": "a leak"})
    section = page.evaluation_section(run_folder.Evaluation("eval", tmp_path, summary))
    assert any("The audit found 1 problem" in sentence for sentence in section.statements)
    (audit,) = [table for table in section.tables if table.caption.startswith("Audit")]
    assert audit.rows[0] == ["future", "test", "✗\u00a0failed", "a leak"]


def test_differences_are_read_with_the_sense_of_each_measure(tmp_path):
    write_evaluation(tmp_path / "eval", curves=False)
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
    assert figures.rewards([], [], REWARDS) is None
    assert figures.rewards([{"step": 1, "completion": "x"}], [], REWARDS) is None
    assert figures.direction_accuracy([]) is None and figures.direction_balance([], 10) is None
    assert [f([]) for f in (figures.sft_loss, figures.kl, figures.lengths, figures.variance)] == [None] * 4
    assert figures.reliability({"m": {}}) is None and figures.roc({"m": {}}, {}) is None
    assert figures.equity({"m": {}}, None, None) is None and figures.market_adaptation({"m": {}}) is None


@pytest.mark.parametrize("completions", [1, 9])
def test_a_run_of_a_few_answers_can_be_drawn(completions):
    lines = log_lines(completions, seed=6)
    drawn = [figures.rewards(lines, [], REWARDS), figures.direction_accuracy(lines)]
    assert all(is_drawn(figure.png) for figure in drawn)


def test_wilson_is_the_interval_of_the_textbook():
    low, high = figures.wilson(np.array([8, 0, 0]), np.array([10, 10, 0]))
    assert (low[0], high[0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert low[1] == 0 and high[1] == pytest.approx(0.2775, abs=1e-4)
    assert np.isnan(low[2])


def test_step_bins_keep_whole_steps_together_in_order():
    step_N = np.repeat(np.arange(1, 101), 3)
    bin_N, middle = figures.step_bins(step_N, 40)
    assert len(middle) == 40 and (np.diff(middle) > 0).all()
    assert all(len(set(bin_N[step_N == step])) == 1 for step in range(1, 101))
    bin_N, middle = figures.step_bins(np.array([5.0, 2.0, 5.0]), 40)
    assert bin_N.tolist() == [1, 0, 1] and middle.tolist() == [2, 5]


def test_a_metric_logged_twice_for_a_step_counts_once_and_gaps_are_left_out():
    lines = [{"step": 1, "kl": 9.0}, {"step": 2, "kl": None}, {"step": 1, "kl": 0.5}, {"step": 3, "kl": 0.7}, {"kl": 1}]
    steps, values = figures.series(lines, "kl")
    assert steps.tolist() == [1, 3] and values.tolist() == [0.5, 0.7]


def test_the_equity_axis_is_logarithmic_only_when_values_span_much():
    def draw(factor):
        days = ["2020-01-01", "2020-01-02", "2020-01-03"]
        return figures.equity({"m": {"backtest": {"dates": days, "equity": [1, 1.1, factor]}}}, None, 5.0)

    assert "ends at 1.20" in draw(1.2).alt and "5 basis points" in draw(1.2).caption
    assert "logarithmic" not in draw(1.2).caption and "logarithmic" in draw(9).caption
    assert "logarithmic" not in draw(-1).caption  # a loss of more than all has no logarithm
    assert (
        "does not say which costs"
        in figures.equity({"m": {"backtest": {"dates": ["2020-01-01"], "equity": [1]}}}, None, None).caption
    )


def test_the_page_escapes_what_it_is_given(tmp_path):
    section = page.Section("<t>", "k", "s", statements=["a < b & c"], problems=["`<p>` <p>"])
    section.anchor = "1-t"
    text = page.render(tmp_path, [section], "<x>")
    assert "<code>&lt;p&gt;</code> &lt;p&gt;" in text
    assert html.escape("a < b & c") in text and "<t>" not in text and "<x>" not in text
