"""`stonk COMMAND`: a table of commands, each imported only when called, so that `stonk --help` answers at once."""

from __future__ import annotations

import importlib
import sys

from stonk_trainer.errors import UserError, did_you_mean, exits_cleanly

# command: (module, function, one line, example)
COMMANDS = {
    "sft": ("stonk_trainer.sft", "main", "warm-up and other supervised fine-tuning", "--config stocks/demo/warmup"),
    "grpo": ("stonk_trainer.grpo", "main", "reinforcement learning (Stage I, Stage II)", "--config stocks/demo/stage1"),
    "check": (
        "stonk_trainer.preflight.check",
        "main",
        "find what is wrong with a run before it starts",
        "stocks/demo/stage1",
    ),
    "eval": (
        "stonk_trainer.evaluation.evaluate",
        "main",
        "judge models on held-out dates",
        "--config stocks/demo/eval --models runs/demo/stage2/best_model",
    ),
    "controls": (
        "stonk_trainer.controls",
        "main",
        "does a recipe learn a planted signal, and nothing else?",
        "stocks/demo/stage1 --seeds 3",
    ),
    "predict": (
        "stonk_trainer.forecasting.prediction",
        "main",
        "forecast with a trained model",
        "--model runs/demo/stage2/best_model --csv AAPL.csv",
    ),
    "score": (
        "stonk_trainer.tasks.stocks.score",
        "main",
        "why an answer earned what it did; gaming in a run's log",
        "--log runs/demo/stage1/training_log.jsonl --rebuild",
    ),
    "report": ("stonk_trainer.report.page", "main", "a run as one web page", "runs/demo"),
    "data": (
        "stonk_trainer.tasks.data",
        "main",
        "fetch prices, print rows, sample Dolci, prove a verifier",
        "fetch BTC-USD --out BTC-USD.csv",
    ),
    "sample": (
        "stonk_trainer.tasks.reasoning.reject",
        "main",
        "rejection sampling: keep a model's right answers",
        "--config r1/demo/rs_generate",
    ),
    "codec": (
        "stonk_trainer.tasks.btc.codec_commands",
        "main",
        "prices <-> tokens: train, encode, decode, inspect a codec",
        "train --config btc/codec",
    ),
    "forecast": (
        "stonk_trainer.tasks.btc.forecast",
        "main",
        "paths a price may take; judged against GARCH",
        "--model runs/btc/demo/rl/best_model --horizon 30 --paths 500",
    ),
    "demo": (
        "stonk_trainer.forecasting.demo",
        "main",
        "a page to try models on, in the browser",
        "--models runs/demo/stage1/best_model runs/demo/stage2/best_model",
    ),
    "merge": (
        "stonk_trainer.publish.merge",
        "main",
        "adapter -> full checkpoint, or GGUF",
        "runs/stage1/best_adapter stage1.gguf --to gguf",
    ),
    "push": (
        "stonk_trainer.publish.push",
        "main",
        "a model and its card to the Hub",
        "runs/stage2 me/my-model --private --dry_run",
    ),
}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if argv[0] == "--version":
        from stonk_trainer.version import __version__

        print(__version__)
        return
    command, *rest = argv
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f": the commands are {', '.join(COMMANDS)}"
        raise UserError(f"stonk {command}: no such command{hint}")
    module, function, _, _ = COMMANDS[command]
    getattr(importlib.import_module(module), function)(rest)


def usage() -> str:
    lines = ["usage: stonk COMMAND [--config RECIPE] [--key value ...]", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, (_, _, text, _) in COMMANDS.items()]
    lines += ["", "examples:"]
    lines += [f"  stonk {name} {example}" for name, (_, _, _, example) in COMMANDS.items()]
    return "\n".join([*lines, "", "stonk COMMAND --help lists the keys of a command."])


if __name__ == "__main__":
    main()
