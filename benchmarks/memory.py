"""The memory that `stonk_trainer.training.memory` estimates for a run, beside what the run takes.

    python benchmarks/memory.py                                  every case (about 20 minutes on 2 cores)
    python benchmarks/memory.py --only sft --json memory.json    cases whose name has "sft" in it

Each case is a process of its own that runs `stonk_trainer.sft` or `stonk_trainer.grpo` on a shipped demo recipe, for
two steps. Weights, gradients and optimiser are the bytes of the trainer's tensors; what a phase takes is the kernel's
peak of the resident set (VmHWM, set back between phases), and the total is the largest. Texts are estimated as long as
the longest row of the recipe's data. On a GPU the peak is torch's, and the process is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

EMBEDDED = ["--model", "embedded:smollm2-135m"]
PLAIN = [*EMBEDDED, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
STATIC = ("weights", "gradients", "optimiser")
LARGE_GPT = ["--gpt_hidden_size", "512", "--gpt_layers", "8", "--gpt_heads", "8"]
# name → (trainer, recipe, flags); {btc} is the folder of codec, tokens and GPTs that `prepare_btc` makes
CASES = {
    "sft lora": ("sft", "stocks/demo/warmup", EMBEDDED),
    "sft full": ("sft", "stocks/demo/warmup", [*EMBEDDED, "--use_peft", "false"]),
    "sft lora, checkpointing": ("sft", "stocks/demo/warmup", [*EMBEDDED, "--gradient_checkpointing", "true"]),
    "grpo lora, evaluated": ("grpo", "stocks/demo/stage1", EMBEDDED),
    "grpo lora, not shared": ("grpo", "stocks/demo/stage1", [*PLAIN, "--shared_prefix", "false"]),
    "grpo lora, kl": ("grpo", "stocks/demo/stage2", PLAIN),
    "grpo full, kl": ("grpo", "stocks/demo/stage2", [*PLAIN, "--use_peft", "false"]),
    "btc sft": ("sft", "btc/demo/pretrain", ["--codec", "{btc}/codec", "--data", "{btc}/all_tokens.txt"]),
    "btc sft, large": (
        "sft",
        "btc/demo/pretrain",
        ["--codec", "{btc}/codec", "--data", "{btc}/all_tokens.txt", *LARGE_GPT],
    ),
    "btc grpo": ("grpo", "btc/demo/rl", ["--model", "{btc}/small"]),
    "btc grpo, large": ("grpo", "btc/demo/rl", ["--model", "{btc}/large"]),
}


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the most since the last `forget_peak`) of this process."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def tensor_bytes(tensors) -> int:
    """Bytes of tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def measure(trainer_name: str, argv: list[str], found_at: str) -> None:
    """Train as the command does, in this process, and write what it took to a file."""
    import torch
    from transformers import TrainerCallback

    from stonk_trainer import grpo, sft
    from stonk_trainer.training import callbacks

    found = {"process": resident("VmRSS"), "phases": {}}

    def end_of(phase: str) -> None:
        gpu = torch.cuda.is_available()
        size = torch.cuda.max_memory_allocated() if gpu else resident("VmHWM")
        found["phases"][phase] = max(size, found["phases"].get(phase, 0))
        torch.cuda.reset_peak_memory_stats() if gpu else forget_peak()

    class Measure(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs):
            end_of("loading")

        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            found["gradients"] = tensor_bytes(p.grad for p in model.parameters() if p.grad is not None)

        def on_step_end(self, args, state, control, model, optimizer, **kwargs):
            while hasattr(optimizer, "optimizer"):
                optimizer = optimizer.optimizer
            states = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
            found["optimiser"] = tensor_bytes(states)
            found["weights"] = tensor_bytes([*model.parameters(), *model.buffers()])
            end_of("training")

    plain = callbacks.watch

    def watch(trainer) -> None:
        plain(trainer)
        trainer.add_callback(Measure())

    callbacks.watch = watch
    {"sft": sft, "grpo": grpo}[trainer_name].main(argv)
    end_of("saving")
    found["total"] = max(found["phases"].values())
    Path(found_at).write_text(json.dumps(found))


def longest(args, tokenizer) -> tuple[int, int]:
    """Tokens of the longest prompt and of the longest completion that a run trains on."""
    from stonk_trainer import sft
    from stonk_trainer.models import chat

    if args.trainer == "sft":
        rows = sft.whole_rows(args.task.sft_dataset("train"), tokenizer, args.train.max_length, "training")
        prompts, lengths = chat.token_lengths(rows, tokenizer)
        return int(prompts.max()), int((lengths - prompts).max())
    prompts = args.task.rl_dataset("train")["prompt"]
    if isinstance(prompts[0], str):
        ids = tokenizer(list(prompts))["input_ids"]
    else:
        ids = tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, return_dict=True)["input_ids"]
    return max(map(len, ids)), args.train.max_completion_length


def estimated(trainer_name: str, argv: list[str], trained: Path) -> dict:
    """The estimate in the form of `measure`."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from stonk_trainer.recipe import load_recipe
    from stonk_trainer.training import memory

    args = load_recipe(argv, trainer_name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = longest(args, AutoTokenizer.from_pretrained(trained))
    phases = memory.estimate(AutoConfig.from_pretrained(trained), args, *lengths, device=device)
    if device == "cuda":
        phases = {phase: {**parts, "process": 0} for phase, parts in phases.items()}
    sums = {phase: sum(parts.values()) for phase, parts in phases.items()}
    step = phases["step"]
    weights = sum(size for part, size in step.items() if part.startswith("weights") or part == "LoRA")
    training = max(size for phase, size in sums.items() if phase != "saving")
    return {
        "tokens": lengths, "process": step["process"], "weights": weights, "gradients": step["gradients"],
        "optimiser": step["optimiser"], "phases": {"training": training, "saving": sums.get("saving", 0)},
        "total": memory.total(phases), "peak": memory.peak(phases), "parts": phases,
    }  # fmt: skip


def run(command: list[str]) -> None:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}")


def prepare_btc(folder: Path) -> None:
    """Codec, tokens, and a small and a large GPT of random weights."""
    from stonk_trainer.tasks.btc.gpt import new_gpt

    codec, recipes = str(folder / "codec"), "recipes/btc/demo"
    stonk = [sys.executable, "-m", "stonk_trainer.cli", "codec"]
    run([*stonk, "train", "--config", f"{recipes}/codec.yaml", "--output_dir", codec, "--steps", "20"])
    run([*stonk, "encode", "--config", f"{recipes}/encode.yaml", "--codec", codec, "--out", f"{folder}/all_tokens.txt"])
    for name, shape in {"small": (64, 3, 4), "large": (512, 8, 8)}.items():
        new_gpt(folder / name, 64, *shape, positions=1024, seed=0)
        run(["cp", "-r", codec, str(folder / name / "codec")])


def compare(name: str, folder: Path, btc: Path) -> dict:
    trainer, recipe, flags = CASES[name]
    output = folder / name.replace(" ", "-").replace(",", "")
    argv = ["--config", recipe, *(flag.replace("{btc}", str(btc)) for flag in flags)]
    argv += ["--output_dir", str(output), "--max_steps", "2"]
    found_at = output.with_suffix(".json")
    run([sys.executable, __file__, "--measure", trainer, str(found_at), *argv])
    return {
        "case": name,
        "measured": json.loads(found_at.read_text()),
        "estimated": estimated(trainer, argv, output / "best_model"),
    }


def print_found(found: dict) -> None:
    measured, guessed = found["measured"], found["estimated"]
    print(f"\n{found['case']}: {' + '.join(map(str, guessed['tokens']))} tokens, peak in {guessed['peak']}")
    print(f"{'MiB':<32}{'measured':>10}{'estimated':>11}{'ratio':>8}")

    def line(label: str, a: int, b: int) -> None:
        print(f"{label:<32}{a / 2**20:>10.1f}{b / 2**20:>11.1f}{b / a:>8.2f}")

    for part in ("process", *STATIC):
        line(part, measured[part], guessed[part])
    line(" + ".join(STATIC), sum(measured[p] for p in STATIC), sum(guessed[p] for p in STATIC))
    for phase, size in measured["phases"].items():
        line(f"{phase}, peak", size, guessed["phases"].get(phase, 0))
    line("total", measured["total"], guessed["total"])


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        return measure(sys.argv[2], sys.argv[4:], sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = []
    names = [name for name in CASES if options.only in name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if any(name.startswith("btc") for name in names):
            prepare_btc(folder)
        for name in names:
            results.append(compare(name, folder, folder))
            print_found(results[-1])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
