"""A GRPO step of ours beside plain TRL's, and beside another commit's, phase by phase.

    python benchmarks/grpo_step.py                                    embedded model and small GPT, all shapes
    python benchmarks/grpo_step.py --models gpt --shapes 8,128,32 --groups 1 --rounds 9 --json out.json
    python benchmarks/grpo_step.py --models embedded --shapes 8,400,64 --checkpointing --vary --against HEAD~3
    python benchmarks/grpo_step.py --real stocks/demo/stage1 --model runs/demo/warmup/best_model --against HEAD~3

Each is a process of its own, which waits while another works: rounds alternate, and which goes first does too. All have
the same weights, prompts and seeds. Without `--real` they sample exactly C tokens; with `--vary`, between a fifth of C
and C of them are learnt from. A step is as many groups as a forward pass of the model's recipe has (or `--groups`).
With `--real`, rows, model and batch are a recipe's (further flags are its keys), answers end where they end, and the
learning rate is 0, so that all have the same model in each round; TRL draws other samples from it than we do.

Times are medians over the rounds; ratios are of neighbouring steps, with their quartiles. `computed` counts the tokens
of all forward passes with a gradient, `needed` the distinct ones among them. Differences of loss and gradient are on
the same completions, in fp32. Peak memory is that of the process, or of the GPU.
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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the package does where it is imported before torch

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig

from stonk_trainer.models import loading
from stonk_trainer.recipe import load_recipe
from stonk_trainer.task import Task, TaskArguments
from stonk_trainer.tasks.btc.gpt import new_gpt
from stonk_trainer.training.grouped import SharedPrefixGRPOTrainer
from stonk_trainer.training.resumable import ScoredGRPOTrainer

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("8,400,64", "8,128,32", "4,800,128", "16,200,200")
PHASES = ("prefill", "decode", "reference", "forward+backward", "optimiser", "other")
GROUPS = {"embedded": 1, "gpt": 8}  # as recipes/stocks/stage1.yaml and recipes/btc/rl.yaml
SMALL_GPT = {"hidden_size": 64, "layers": 3, "heads": 4, "positions": 1024}  # as recipes/btc/pretrain.yaml


# ------------------------------------------------------------------------------------------------- one process


class _Silent(Task):
    """A task that says nothing of its answers."""

    REWARDS = ("any",)

    def read(self, rows, completions):
        return [{} for _ in rows]


class Steps:
    """One trainer, and the seconds of each phase of its steps. spec: what `main` makes of the flags."""

    def __init__(self, spec: dict[str, Any]):
        self.spec, self.rounds = spec, 0
        torch.manual_seed(0)
        self.trainer = trainer = (_real if spec["real"] else _synthetic)(spec)
        trainer.create_optimizer()
        if trainer.args.gradient_checkpointing:  # as `train` does
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        trainer._step, trainer.current_gradient_accumulation_steps = 0, trainer.args.gradient_accumulation_steps
        self.prompts = trainer.args.generation_batch_size // trainer.num_generations
        self.seconds: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.sampling, self.prefilled, self.started = False, False, 0.0
        for name in ("_get_per_token_logps_and_entropies", "_generate_single_turn", "_generate_and_score_completions"):
            self._time(name)
        backbone = trainer.accelerator.unwrap_model(trainer.model)
        backbone = (backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone).base_model
        backbone.register_forward_pre_hook(self._before, with_kwargs=True)
        backbone.register_forward_hook(self._after, with_kwargs=True)

    def _time(self, name: str) -> None:
        original = getattr(self.trainer, name)

        def timed(*args, **keys):
            if name == "_get_per_token_logps_and_entropies" and torch.is_grad_enabled():
                self._count(args[1], args[2])
                return original(*args, **keys)
            started, self.sampling, self.prefilled = time.perf_counter(), name == "_generate_single_turn", False
            result = original(*args, **keys)
            synchronise()
            self.seconds[name] += time.perf_counter() - started
            if self.sampling:
                self.tokens["answers"] += sum(map(len, result[0]))
            self.sampling = False
            return result

        setattr(self.trainer, name, timed)

    def _count(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> None:
        rows = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(ids_BL, mask_BL, strict=True)]
        self.tokens["needed"] += len({row[:end] for row in rows for end in range(1, len(row) + 1)})

    def _before(self, module, args, keys):
        self.started = time.perf_counter()
        ids = keys["input_ids"] if "input_ids" in keys else args[0]
        if torch.is_grad_enabled():
            self.tokens["computed"] += ids.numel()

    def _after(self, module, args, keys, output):
        ids = keys["input_ids"] if "input_ids" in keys else args[0]
        if self.sampling and ids.shape[1] > 1 and not self.prefilled:  # later passes of several tokens verify drafts
            synchronise()
            self.seconds["prefill"], self.prefilled = time.perf_counter() - self.started, True

    def step(self) -> dict[str, Any]:
        """The seconds of one step by phase, and its tokens."""
        trainer, group = self.trainer, self.trainer.num_generations
        self.seconds.clear()
        self.tokens.clear()
        torch.manual_seed(2)
        numbers = [(self.rounds * self.prompts + n) % len(trainer.train_dataset) for n in range(self.prompts)]
        rows = [dict(trainer.train_dataset[number]) for number in numbers for _ in range(group)]
        self.rounds += 1
        started = time.perf_counter()
        for _ in range(trainer.args.gradient_accumulation_steps):
            trainer.training_step(trainer.model, rows)
        synchronise()
        passes, started = time.perf_counter() - started, time.perf_counter()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        synchronise()
        seconds = self.seconds
        rollout, reference = seconds["_generate_single_turn"], seconds["_get_per_token_logps_and_entropies"]
        scored = seconds["_generate_and_score_completions"]
        found = {
            "prefill": seconds["prefill"], "decode": rollout - seconds["prefill"], "reference": reference,
            "forward+backward": passes - scored, "optimiser": time.perf_counter() - started,
            "other": scored - rollout - reference,
        }  # fmt: skip
        return found | {"step": passes + found["optimiser"], **self.tokens, "peak_mib": peak_mib()}

    def gradient(self, path: str) -> float:
        """The loss of a step on completions of its seed; its gradient goes to a file."""
        trainer = self.trainer
        generator = torch.Generator().manual_seed(3)
        group, _, completion = self.spec["shape"]
        rows = [dict(row) for row in trainer.train_dataset for _ in range(group)]
        completions = torch.randint(0, 60, (len(rows), completion), generator=generator).tolist()
        cut = torch.randint(completion // 5, completion + 1, (len(rows),), generator=generator).tolist()
        if self.spec["vary"]:
            completions = [ids[:length] for ids, length in zip(completions, cut, strict=True)]
        trainer._generate_single_turn = lambda *_, **__: (completions, None)
        trainer.model.train()
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, trainer._generate_and_score_completions(rows))
        loss.backward()
        gradient = [p.grad.flatten().float() for p in trainer.model.parameters() if p.grad is not None]
        torch.save(torch.cat(gradient), path)
        return loss.item()


def synchronise() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory before the exec
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _class_and_keys(spec: dict[str, Any]) -> tuple[type, dict[str, Any]]:
    return (ScoredGRPOTrainer, {}) if spec["kind"] == "plain" else (SharedPrefixGRPOTrainer, {"shared_prefix": "auto"})


def _synthetic(spec: dict[str, Any]) -> ScoredGRPOTrainer:
    (group, prompt, completion), groups, (cls, own) = spec["shape"], spec["groups"], _class_and_keys(spec)
    tokenizer = loading.load_tokenizer(spec["model"])
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=group * groups, num_generations=group,
        max_completion_length=completion, generation_kwargs={"min_new_tokens": completion}, beta=0.04,
        loss_type="dr_grpo", bf16=False, gradient_checkpointing=spec["checkpointing"], report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=not torch.accelerator.is_available(), learning_rate=1e-5,
        max_steps=1, gradient_accumulation_steps=1,
        mask_truncated_completions=False, model_init_kwargs={"dtype": spec["dtype"]},
    )  # fmt: skip
    peft = {"peft_config": LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")} if spec["lora"] else {}
    trainer = cls(
        model=spec["model"], args=args, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(groups)]}),
        reward_funcs=[lambda completions, **_: torch.arange(len(completions)).float().tolist()],
        task=_Silent(TaskArguments()), **peft, **own,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    vocabulary = range(64) if len(tokenizer) < 1000 else range(1000, 40_000)
    picks = torch.randint(len(vocabulary), (groups, prompt), generator=generator).tolist()
    ids = [[vocabulary[i] for i in pick] for pick in picks]
    trainer._tokenize_prompts = lambda prompts: ([ids[int(text)] for text in prompts], None, {})
    lengths = torch.randint(completion // 5, completion + 1, (group * groups,), generator=generator).tolist()
    generate = trainer._generate_single_turn

    def cut(*args, **keys):
        completions, extra = generate(*args, **keys)
        return [ids[:length] for ids, length in zip(completions, lengths, strict=True)], extra

    if spec["vary"]:
        trainer._generate_single_turn = cut
    return trainer


def _real(spec: dict[str, Any]) -> ScoredGRPOTrainer:
    """As `stonk grpo` makes it, with a learning rate of 0."""
    quiet = ["--output_dir", tempfile.mkdtemp(), "--eval_strategy", "no", "--report_to", "none"]
    quiet += ["--load_best_model_at_end", "false", "--save_strategy", "no", "--max_steps", "1"]
    args = load_recipe(["--config", *spec["real"], *quiet], trainer="grpo")
    name, (cls, own) = args.model.model_name_or_path, _class_and_keys(spec)
    args.train.learning_rate, args.train.model_init_kwargs = 0.0, loading.loading_options(args.model)
    path = loading.locate_model(name, args.train.output_dir)
    return cls(
        model=path, **loading.training_form(args.model), processing_class=loading.load_tokenizer(path),
        args=args.train, reward_funcs=args.task.reward_functions(), train_dataset=args.task.rl_dataset("train"),
        task=args.task, **own,
    )  # fmt: skip


def serve(spec: dict[str, Any]) -> None:
    """Answer each line of the standard input, `step` or `gradient FILE`, with a line of JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr
    steps = Steps(spec)
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        print(json.dumps(steps.step() if command == "step" else steps.gradient(path)), file=answers, flush=True)


# ------------------------------------------------------------------------------------------------- side by side


@contextmanager
def worker(spec: dict[str, Any]) -> Iterator[Callable[[str], Any]]:
    """A process that serves, of another commit where its package lies in `spec["package"]`: what asks it."""
    environment = os.environ | {"PYTHONPATH": spec.get("package") or str(ROOT)}
    command = [sys.executable, __file__, "--serve", json.dumps(spec)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=environment, stderr=log, **pipes) as process,
    ):

        def ask(line: str) -> Any:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            if answer := process.stdout.readline():
                return json.loads(answer)
            status = process.wait()
            log.seek(0)
            killed = "it was killed, for want of memory perhaps: compare fewer at a time\n" if status == -9 else ""
            sys.exit(f"a process ended with status {status}\n{killed}{log.read()[-3000:]}")

        yield ask


def measure(specs: dict[str, dict], rounds: int, compare: bool) -> dict[str, Any]:
    """Medians by kind; ratios of neighbours to ours, with quartiles; differences of loss and gradient from TRL's."""
    seen: dict[str, list[dict]] = {kind: [] for kind in specs}
    with ExitStack() as stack:
        asked = {kind: stack.enter_context(worker(spec)) for kind, spec in specs.items()}
        for turn in range(rounds + 1):
            for kind in list(asked)[:: -1 if turn % 2 else 1]:
                step = asked[kind]("step")
                if turn:  # the first round warms up
                    seen[kind].append(step)
    ratios = {}
    for kind in [kind for kind in specs if kind != "ours"]:
        times = [one["step"] / ours["step"] for one, ours in zip(seen[kind], seen["ours"], strict=True)]
        ratios[kind] = statistics.quantiles(times if rounds > 1 else times * 2, n=4, method="inclusive")
    medians = {kind: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for kind, runs in seen.items()}
    return {"medians": medians, "ratios": ratios} | ({"differences": _differences(specs)} if compare else {})


def _differences(specs: dict[str, dict]) -> dict[str, tuple[float, float]]:
    """{kind: (difference of the loss, of the gradient as a share of its norm)} from plain TRL's."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, spec in specs.items():
            path = Path(folder, kind)
            with worker(spec | {"dtype": "float32"}) as ask:
                found[kind] = ask(f"gradient {path}"), torch.load(path)
    loss, gradient = found.pop("plain")
    return {
        kind: (abs(other - loss), float((vector - gradient).norm() / gradient.norm()))
        for kind, (other, vector) in found.items()
    }


def show(title: str, found: dict[str, Any]) -> None:
    print(f"\n{title}")
    names = (*PHASES, "step")
    print(f"{'':<10}" + "".join(f"{name:>18}" for name in names) + "   computed   needed  answers  peak MiB")
    for kind, medians in found["medians"].items():
        counts = (medians.get(name, 0) for name in ("computed", "needed", "answers", "peak_mib"))
        cells = "".join(f"{medians[name]:>17.2f}s" for name in names)
        print(f"{kind:<10}{cells}" + "".join(f"{c:>{w}.0f}" for c, w in zip(counts, (11, 9, 9, 10), strict=True)))
    for kind, (low, middle, high) in found["ratios"].items():
        print(f"ours is {middle:.2f} times as fast as {kind} ({low:.2f} to {high:.2f})")
    for kind, (loss, gradient) in found.get("differences", {}).items():
        print(f"in fp32 the loss of {kind} is {loss:.1e} from TRL's, the gradient {gradient:.1e} of its norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", default=["embedded", "gpt"], choices=["embedded", "gpt"])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="G,P,C")
    parser.add_argument("--groups", type=int, help="prompts of a step; without it 1 (embedded) and 8 (gpt)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--full", action="store_true", help="train all weights of the embedded model instead of LoRA")
    parser.add_argument("--times_only", action="store_true", help="no comparison in fp32, which takes the most memory")
    parser.add_argument("--checkpointing", action="store_true", help="gradient_checkpointing, as Stage I and II set it")
    parser.add_argument("--vary", action="store_true", help="completions of many lengths, from C / 5 to C tokens")
    parser.add_argument("--real", metavar="RECIPE", help="its rows, model and batch; further flags are its keys")
    parser.add_argument("--against", metavar="REV", help="a commit to compare with, since there is training/grouped.py")
    parser.add_argument("--without_trl", action="store_true", help="ours and --against alone")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options, keys = parser.parse_known_args()
    if options.serve:
        return serve(json.loads(options.serve))
    if keys and not options.real:
        parser.error(f"unknown: {' '.join(keys)}")
    if options.without_trl and not options.against:
        parser.error("--without_trl needs --against")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, dict] = {} if options.without_trl else {"plain": {}}
        kinds["ours"] = {}
        if options.against:
            package = Path(folder, "against")
            package.mkdir()
            archive = subprocess.run(["git", "archive", options.against], cwd=ROOT, check=True, capture_output=True)
            subprocess.run(["tar", "-x", "-C", package], input=archive.stdout, check=True)
            kinds[options.against] = {"package": str(package)}

        def run(title: str, compare: bool, **spec: Any) -> None:
            specs = {kind: {"kind": kind, **spec, **own} for kind, own in kinds.items()}
            found = measure(specs, options.rounds, compare)
            results.append({"title": title, **spec, **found})
            show(title, found)

        if options.real:
            run(f"{options.real} {' '.join(keys)}", False, real=[options.real, *keys])
        for name in () if options.real else options.models:
            path = str(loading.embedded_model("embedded:smollm2-135m")) if name == "embedded" else f"{folder}/gpt"
            if name == "gpt":
                new_gpt(Path(path), 64, **SMALL_GPT, seed=0)
            for text in options.shapes:
                group, prompt, completion = shape = tuple(map(int, text.split(",")))
                lora, groups = name == "embedded" and not options.full, options.groups or GROUPS[name]
                how = {"checkpointing": options.checkpointing, "vary": options.vary}
                said = ", ".join([options.dtype, *["LoRA"] * lora, *(key for key, value in how.items() if value)])
                run(
                    f"{name}  {groups} x (G={group} P={prompt} C={completion})  {said}",
                    not options.times_only and not options.without_trl,
                    real=None, model=path, shape=shape, groups=groups, dtype=options.dtype, lora=lora, **how,
                )  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
