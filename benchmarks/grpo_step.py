"""A GRPO step with shared prompts beside plain TRL's, phase by phase, in one process.

    python benchmarks/grpo_step.py                                    embedded model and small GPT, all shapes
    python benchmarks/grpo_step.py --models gpt --shapes 8,128,32 --groups 1 --rounds 9 --json out.json
    python benchmarks/grpo_step.py --models embedded --shapes 8,400,64 --checkpointing --vary

Both trainers have the same weights, prompts and seeds and sample exactly C tokens; with `--vary`, between a fifth of C
and C of them are learnt from. Rounds alternate, and which goes first does too. A step is as many groups as a forward
pass of the model's recipe has (or `--groups`): rollout, reference log-probabilities, loss and gradient, optimiser.
Times are medians over the rounds; ratios are of neighbouring steps, with their quartiles. Differences of loss and
gradient are on the same completions, in fp32. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig

from stonk_trainer.models import loading
from stonk_trainer.task import Task, TaskArguments
from stonk_trainer.tasks.btc.gpt import new_gpt
from stonk_trainer.training.grouped import SharedPrefixGRPOTrainer
from stonk_trainer.training.resumable import ScoredGRPOTrainer

SHAPES = ("8,400,64", "8,128,32", "4,800,128", "16,200,200")
PHASES = ("prefill", "decode", "reference", "forward+backward", "optimiser")
GROUPS = {"embedded": 1, "gpt": 8}  # as recipes/stocks/stage1.yaml and recipes/btc/rl.yaml
SMALL_GPT = {"hidden_size": 64, "layers": 3, "heads": 4, "positions": 1024}  # as recipes/btc/pretrain.yaml


class _Silent(Task):
    """A task that says nothing of its answers."""

    REWARDS = ("any",)

    def read(self, rows, completions):
        return [{} for _ in rows]


class Steps:
    """One trainer, and the seconds of each phase of its steps."""

    def __init__(
        self, cls, path: str, shape: tuple[int, int, int], groups: int, dtype: str, lora: bool, how: str, **own
    ):
        group, prompt, completion = shape
        tokenizer = loading.load_tokenizer(path)
        args = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=group * groups, num_generations=group,
            max_completion_length=completion, generation_kwargs={"min_new_tokens": completion}, beta=0.04,
            loss_type="dr_grpo", bf16=False, gradient_checkpointing="checkpointing" in how, report_to="none",
            save_strategy="no", disable_tqdm=True, use_cpu=not torch.accelerator.is_available(), learning_rate=1e-5,
            max_steps=1,
            mask_truncated_completions=False, model_init_kwargs={"dtype": dtype},
        )  # fmt: skip
        peft = {"peft_config": LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")} if lora else {}
        torch.manual_seed(0)
        self.trainer = cls(
            model=path, args=args, processing_class=tokenizer, 
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(groups)]}),
            reward_funcs=[lambda completions, **_: torch.arange(len(completions)).float().tolist()],
            task=_Silent(TaskArguments()), **peft, **own,
        )  # fmt: skip
        trainer = self.trainer
        trainer.create_optimizer()
        trainer.model.train()
        trainer._step, trainer.current_gradient_accumulation_steps = 0, 1
        generator = torch.Generator().manual_seed(1)
        vocabulary = range(64) if len(tokenizer) < 1000 else range(1000, 40_000)
        picks = torch.randint(len(vocabulary), (groups, prompt), generator=generator).tolist()
        ids = [[vocabulary[i] for i in pick] for pick in picks]
        trainer._tokenize_prompts = lambda prompts: ([ids[int(text)] for text in prompts], None, {})
        self.rows = [dict(row) for row in trainer.train_dataset for _ in range(group)]
        lengths = torch.randint(completion // 5, completion + 1, (len(self.rows),), generator=generator).tolist()
        if "vary" in how:
            self._cut(lengths)
        self.seconds: dict[str, float] = {}
        self._time(trainer, "_get_per_token_logps_and_entropies", "reference")
        self._time(trainer, "_generate_single_turn", "decode")
        backbone = trainer.accelerator.unwrap_model(trainer.model)
        backbone = (backbone.get_base_model() if lora else backbone).base_model
        backbone.register_forward_pre_hook(self._before, with_kwargs=True)
        backbone.register_forward_hook(self._after, with_kwargs=True)
        self.sampling, self.started = False, 0.0

    def _cut(self, lengths: list[int]) -> None:
        generate = self.trainer._generate_single_turn

        def cut(*args, **keys):
            completions, extra = generate(*args, **keys)
            return [ids[:length] for ids, length in zip(completions, lengths, strict=True)], extra

        self.trainer._generate_single_turn = cut

    def _time(self, owner, name: str, phase: str) -> None:
        original = getattr(owner, name)

        def timed(*args, **keys):
            started, self.sampling = time.perf_counter(), phase == "decode"
            result = original(*args, **keys)
            synchronise()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started
            self.sampling = False
            return result

        setattr(owner, name, timed)

    def _before(self, module, args, keys):
        self.started = time.perf_counter()

    def _after(self, module, args, keys, output):
        ids = keys["input_ids"] if "input_ids" in keys else args[0]
        if self.sampling and ids.shape[1] > 1:
            synchronise()
            spent = time.perf_counter() - self.started
            self.seconds["prefill"] = self.seconds.get("prefill", 0.0) + spent
            self.seconds["decode"] = self.seconds.get("decode", 0.0) - spent

    def step(self) -> dict[str, float]:
        """Seconds by phase of one step."""
        trainer, self.seconds = self.trainer, {}
        torch.manual_seed(2)
        batch = trainer._generate_and_score_completions(self.rows)
        reference = self.seconds.pop("reference", 0.0)
        started = time.perf_counter()
        trainer.compute_loss(trainer.model, batch).backward()
        synchronise()
        gradient = time.perf_counter() - started
        started = time.perf_counter()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        synchronise()
        optimiser = time.perf_counter() - started
        times = {**self.seconds, "reference": reference, "forward+backward": gradient, "optimiser": optimiser}
        return {phase: times.get(phase, 0.0) for phase in PHASES}

    def loss_and_gradient(self, completions: list[list[int]]) -> tuple[float, torch.Tensor]:
        trainer = self.trainer
        trainer._generate_single_turn = lambda *_, **__: (completions, None)
        trainer.model.zero_grad()
        batch = trainer._generate_and_score_completions(self.rows)
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten().float() for p in trainer.model.parameters() if p.grad is not None])
        return loss.item(), gradient


def synchronise() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


KINDS = {"plain": (ScoredGRPOTrainer, {}), "shared": (SharedPrefixGRPOTrainer, {"shared_prefix": "auto"})}


def peak_of(kind: str, path: str, shape: tuple[int, int, int], groups: int, dtype: str, lora: bool, how: str) -> float:
    """Peak memory of a process that loads the model and does two steps, in MiB (of the GPU, where there is one)."""
    command = [
        sys.executable,
        __file__,
        "--peak",
        kind,
        path,
        ",".join(map(str, shape)),
        str(groups),
        dtype,
        str(int(lora)),
        how,
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(kind: str, path: str, shape: str, groups: str, dtype: str, lora: str, how: str) -> None:
    cls, own = KINDS[kind]
    steps = Steps(cls, path, tuple(map(int, shape.split(","))), int(groups), dtype, lora == "1", how, **own)
    for _ in range(2):
        steps.step()
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory before the exec
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure(
    name: str, path: str, shape: tuple[int, int, int], groups: int, rounds: int, dtype: str, lora: bool, how: str,
    compare: bool,
) -> dict:  # fmt: skip
    """Both trainers at one shape: medians, ratios of neighbours with quartiles, differences of loss and gradient when
    these are to be compared."""
    peaks = {
        kind: peak_of(kind, path, shape, groups, dtype, lora, how) for kind in KINDS
    }  # first: this process is small yet
    both = {kind: Steps(cls, path, shape, groups, dtype, lora, how, **own) for kind, (cls, own) in KINDS.items()}
    seen: dict[str, list] = {kind: [] for kind in both}
    for turn in range(rounds + 1):
        for kind in sorted(both, reverse=bool(turn % 2)):
            found = both[kind].step()
            if turn:  # the first round warms up
                seen[kind].append(found)
    totals = {kind: [sum(times.values()) for times in runs] for kind, runs in seen.items()}
    ratios = [a / b for a, b in zip(totals["plain"], totals["shared"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    del both
    difference = _difference(path, shape, groups, lora, how) if compare else None
    tokens = shape[0] * groups * shape[2]
    return {
        "model": name, "shape": shape, "groups": groups, "dtype": dtype, "lora": lora, "how": how, "rounds": rounds,
        "seconds": {
            kind: {phase: statistics.median(times[phase] for times in runs) for phase in PHASES}
            | {"step": statistics.median(totals[kind])}
            for kind, runs in seen.items()
        },
        "tokens_per_second": {kind: tokens / statistics.median(totals[kind]) for kind in totals},
        "peak_mib": peaks,
        "ratio": {"median": quartiles[1], "quartiles": [quartiles[0], quartiles[2]]},
        "difference": difference,
    }  # fmt: skip


def _difference(path: str, shape: tuple[int, int, int], groups: int, lora: bool, how: str) -> dict[str, float]:
    """Of the loss, and of the gradient as a share of its norm, on the same completions in fp32."""
    generator = torch.Generator().manual_seed(3)
    completions = torch.randint(0, 60, (shape[0] * groups, shape[2]), generator=generator).tolist()
    (loss_a, grad_a), (loss_b, grad_b) = (
        Steps(cls, path, shape, groups, "float32", lora, how, **own).loss_and_gradient(completions)
        for cls, own in KINDS.values()
    )
    return {"loss": abs(loss_a - loss_b), "gradient": ((grad_a - grad_b).norm() / grad_a.norm()).item()}


def print_found(found: dict) -> None:
    group, prompt, completion = found["shape"]
    what = f"{found['groups']} x (G={group} P={prompt} C={completion})  {found['dtype']}"
    print(f"\n{found['model']}  {what}{', LoRA' if found['lora'] else ''} {found['how']}")
    print("        " + "".join(f"{phase:>18}" for phase in (*PHASES, "step")) + "   tokens/s   peak MiB")
    for kind, seconds in found["seconds"].items():
        cells = "".join(f"{seconds[phase]:>17.2f}s" for phase in (*PHASES, "step"))
        print(f"{kind:<8}{cells}{found['tokens_per_second'][kind]:>11.1f}{found['peak_mib'][kind]:>11.0f}")
    low, high = found["ratio"]["quartiles"]
    print(f"shared is {found['ratio']['median']:.2f} times as fast ({low:.2f} to {high:.2f})")
    if found["difference"]:
        loss, gradient = found["difference"].values()
        print(f"in fp32 the loss differs by {loss:.1e}, the gradient by {gradient:.1e} of its norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["embedded", "gpt"], choices=["embedded", "gpt"])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="G,P,C")
    parser.add_argument("--groups", type=int, help="prompts of a step; without it 1 (embedded) and 8 (gpt)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--full", action="store_true", help="train all weights of the embedded model instead of LoRA")
    parser.add_argument("--times_only", action="store_true", help="no comparison in fp32, which takes the most memory")
    parser.add_argument("--checkpointing", action="store_true", help="gradient_checkpointing, as Stage I and II set it")
    parser.add_argument("--vary", action="store_true", help="completions of many lengths, from C / 5 to C tokens")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--peak", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return print_peak(*options.peak)
    how = " ".join(name for name in ("checkpointing", "vary") if getattr(options, name))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            path = str(loading.embedded_model("embedded:smollm2-135m")) if name == "embedded" else folder
            if name == "gpt":
                new_gpt(Path(folder), 64, **SMALL_GPT, seed=0)
            for text in options.shapes:
                shape = tuple(map(int, text.split(",")))
                lora = name == "embedded" and not options.full
                groups = options.groups or GROUPS[name]
                results.append(
                    measure(name, path, shape, groups, options.rounds, options.dtype, lora, how, not options.times_only)
                )
                print_found(results[-1])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
