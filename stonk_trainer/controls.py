"""`stonk controls RECIPE`: does this recipe learn what is there, and only that?

    stonk controls stocks/demo/stage1 --seeds 3 --reward_weights 1 0 0

Two runs of a GRPO recipe per seed, from its own model, on its own companies and days, whose next day is a fair coin's.
Positive: a signal in the prompt tells that coin; held-out accuracy must rise above 80%. Null: the signal tells another
coin; the 95% interval of held-out accuracy must contain 50%, and no milestone may be reached. Further flags are keys of
the recipe. A control that was killed is resumed by the same command; those that ended are not run again. Writes
`controls.json` and `controls.png`. Exit status 1 when a control fails.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.files import make_folder, write_json, write_whole
from stonk_trainer.recipe import Arguments, load_recipe, take_option
from stonk_trainer.task import ForecastTask
from stonk_trainer.terminal import log, make_console, plain_table, start_log

if TYPE_CHECKING:
    from stonk_trainer.report.canvas import Chart

LEARNT = 0.8  # held-out accuracy of a positive control above this
USAGE = "usage: stonk controls RECIPE [--seeds N] [--rows N] [--out FOLDER] [--key value ...]\n\n"
OWN_KEYS = ("dataset_name", "csv", "sampling_seed", "seed", "resume_from_checkpoint")  # set for each run


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE + (__doc__ or ""))
        return
    if not argv[0].startswith("-"):
        argv = ["--config", *argv]
    seeds, argv = _take_count(argv, "--seeds", 1)
    rows, argv = _take_count(argv, "--rows", 256)
    folder, argv = take_option(argv, "--out")
    for key in OWN_KEYS:
        if any(flag.split("=")[0] == f"--{key}" for flag in argv):
            raise UserError(f"--{key}: stonk controls sets it for each run: leave it out, or put it into the recipe")
    args = load_recipe(argv, trainer="grpo")
    task = args.task
    if not isinstance(task, ForecastTask):
        raise UserError(f"stonk controls: the task {task.name} makes no forecasts")
    output = make_folder(folder or "runs/controls", "out")
    start_log()
    outcomes = []
    for seed in range(1, seeds + 1):
        for name in ("positive", "null"):
            outcomes.append(run_control(args, task, argv, name, seed, output, rows))
            write_json(output / "controls.json", outcomes)
    from stonk_trainer.report.canvas import as_png

    if drawn := as_png(draw)(outcomes):
        write_whole(output / "controls.png", drawn.png)
    print_outcomes(outcomes)
    log.info("saved %s", output / "controls.json")
    if not all(outcome["passed"] for outcome in outcomes):
        sys.exit(1)


def _take_count(argv: list[str], option: str, default: int) -> tuple[int, list[str]]:
    value, rest = take_option(argv, option)
    if value is not None and (not value.isdecimal() or int(value) < 1):
        raise UserError(f"{option}: {value} is not a number of at least 1")
    return int(value or default), rest


def run_control(
    args: Arguments, task: ForecastTask, argv: Sequence[str], name: str, seed: int, output: Path, rows: int
) -> dict[str, Any]:
    """Train and judge one control, as far as that is not done yet.

    Args:
        args: the resolved recipe.
        task: its task.
        argv: `--config RECIPE` and the flags it was resolved from.
        name: positive or null.
        seed: of the rows, the sampling and the run.
        output: the folder of all controls.
        rows: held-out rows to judge on.
    """
    folder, started = output / f"seed{seed}" / name, time.monotonic()
    keys = task.control_rows(folder / "rows.parquet", seed, shuffled=name == "null")
    run = folder / "grpo"
    trained = run / "best_model"
    if not trained.exists():
        log.info("seed %d, %s control: training", seed, name)
        flags = {**keys, "seed": seed, "output_dir": run, "resume_from_checkpoint": "auto"}
        _stonk("stonk_trainer.grpo", [*argv, *(part for key, value in flags.items() for part in (f"--{key}", value))])
    summary = folder / "eval" / "summary.json"
    if not summary.exists():
        log.info("seed %d, %s control: %d held-out rows", seed, name, rows)
        models = [args.model.model_name_or_path, str(trained)]
        recipe = _eval_recipe(args, {**keys, "max_eval_samples": rows}, models, seed, summary.parent)
        write_whole(folder / "eval.yaml", recipe)
        _stonk("stonk_trainer.evaluation.evaluate", ["--config", folder / "eval.yaml"])
    before, after = json.loads(summary.read_text())["models"].values()
    record = json.loads((run / "run.json").read_text())
    low, high = after["accuracy_ci95"] or (0.0, 1.0)
    reached = bool(record["milestone"] and record["milestone"]["reached"])
    passed = after["accuracy"] > LEARNT if name == "positive" else low <= 0.5 <= high and not reached
    return {
        "control": name,
        "seed": seed,
        "rows": after["n"],
        "before": before["accuracy"],
        "before_ci95": before["accuracy_ci95"],
        "after": after["accuracy"],
        "after_ci95": (low, high),
        "steps": record["steps"],
        "milestone": reached,
        "passed": bool(passed),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


def _stonk(module: str, arguments: Sequence[Any]) -> None:
    """Run a command in a process of its own, whose memory is free again when it ends."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)])
    if done.returncode:
        sys.exit(done.returncode)  # it said why


def _eval_recipe(args: Arguments, keys: dict[str, Any], models: list[str], seed: int, output: Path) -> str:
    """The recipe of the evaluation, in which answers are asked for as in training."""
    import yaml

    of_task = {key: value for key, value in dataclasses.asdict(args.task.args).items() if value is not None}
    content = {"task": args.values["task"], "models": models, "output_dir": str(output)}
    content |= of_task | keys
    content |= {
        "reward_weights": args.train.reward_weights,
        "max_completion_length": args.train.max_completion_length,
        "temperature": args.train.temperature,
        "dtype": args.model.dtype,
        "seed": seed,
    }
    return yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)


def print_outcomes(outcomes: Sequence[dict[str, Any]]) -> None:
    columns = ("seed", "control", "before", "after", "95% interval", "steps", "milestone", "minutes", "verdict")
    table = plain_table(*columns, numbers=("seed", "before", "after", "steps", "minutes"))
    for outcome in outcomes:
        low, high = outcome["after_ci95"]
        table.add_row(
            str(outcome["seed"]),
            outcome["control"],
            f"{outcome['before']:.1%}",
            f"{outcome['after']:.1%}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            str(outcome["steps"]),
            "reached" if outcome["milestone"] else "not reached",
            f"{outcome['minutes']:.0f}",
            "pass" if outcome["passed"] else "FAILED",
        )
    console = make_console()
    console.print(table)
    console.print(
        f"Held-out accuracy on {outcomes[0]['rows']} rows each, before and after training; days are a fair coin's. "
        f"positive passes above {LEARNT:.0%}, null where the interval contains 50% and no milestone was reached.",
        style="dim",
    )


def draw(outcomes: Sequence[dict[str, Any]]) -> Chart:
    """Held-out accuracy before and after training, with intervals, for each control and seed."""
    from stonk_trainer.report import canvas

    figure, axes = canvas.grid("Controls: held-out accuracy before and after training", 1, 2, 3.4, sharey=True)
    texts = []
    for ax, name in zip(axes[0], ("positive", "null"), strict=True):
        shown = [outcome for outcome in outcomes if outcome["control"] == name]
        for number, outcome in enumerate(shown):
            look = canvas.style(number, points=2)
            places = [number * 0.04, 1 + number * 0.04]
            for place, ends in zip(places, (outcome["before_ci95"], outcome["after_ci95"]), strict=True):
                if ends:
                    ax.vlines(place, *ends, color=look["color"], linewidth=1.2)
            ax.plot(places, [outcome["before"], outcome["after"]], label=f"seed {outcome['seed']}", **look)
            texts.append(f"{name}, seed {outcome['seed']}: {outcome['before']:.0%} to {outcome['after']:.0%}")
        ax.axhline(0.5, color=canvas.BLACK, linestyle=":", linewidth=1)
        ax.set_title("a planted signal" if name == "positive" else "a shuffled signal")
        ax.set_xlim(-0.3, 1.4)
        ax.set_xticks([0, 1], ["before", "after"])
        canvas.percent(ax)
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 1].legend(loc="upper right")
    return figure, "controls", "; ".join(texts), "Vertical lines are 95% intervals; the dotted line is chance."


if __name__ == "__main__":
    main()
