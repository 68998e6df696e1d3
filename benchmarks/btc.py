"""What the trainer costs and the cache saves at the size of the btc task. About a minute on one core.

    .venv/bin/python benchmarks/btc.py

Training: the trainer of `stonk sft` with the keys of recipes/btc/pretrain.yaml (64 wide, 3 layers, batches of 32 x 256
tokens) beside a plain PyTorch loop over the same Transformers model, with the same batches, AdamW, clipping and
schedule. Both train in the same process, a stretch of steps at a time in turn, so that whatever else the machine does
meets both; the ratio is of neighbouring stretches. Both end with the same weights, or the comparison says so and fails.

Sampling: 16 paths of 24 tokens after a context of 400 by `gpt.sample_paths`, which reads the context once and keeps its
keys and values, beside the same samples without a cache, where every token reads everything before it again.

Seconds are of the processor, not of the clock, on one thread: other jobs then change little.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stonk_trainer.recipe import load_recipe

CODES, CONTEXT, HORIZON, PATHS = 64, 400, 24, 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="stretches of each, in turn")
    parser.add_argument("--steps", type=int, default=5, help="training steps of a stretch")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="stonk-benchmark-"))
    try:
        compared = [compare_training(folder, args.rounds, args.steps, args.seed)]
        compared.append(compare_sampling(folder / "model", args.rounds, args.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{'tokens per second':<34}{'the product':>14}{'beside':>14}{'times as fast':>15}  quartiles")
    for name, ours, theirs in compared:
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        speeds = f"{statistics.median(ours):>14,.0f}{statistics.median(theirs):>14,.0f}"
        print(f"{name:<34}{speeds}{middle:>15.2f}  {low:.2f} to {high:.2f}")
    return 0


# ----------------------------------------------------------------------------------------------------------- training


def compare_training(folder: Path, rounds: int, steps: int, seed: int) -> tuple[str, list[float], list[float]]:
    """(name, tokens per second of the trainer, of the plain loop), a figure per stretch; both take the same steps."""
    keys = ["--out", str(folder / "run"), "--eval_strategy", "no", "--save_strategy", "no", "--seed", str(seed)]
    keys += ["--load_best_model_at_end", "false", "--steps", str((rounds + 1) * steps)]
    recipe = load_recipe(["--config", "btc/pretrain", *keys], "sft")
    config, task = recipe.train, recipe.task.args

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback, get_scheduler

    from stonk_trainer.models import loading
    from stonk_trainer.tasks.btc.gpt import new_gpt
    from stonk_trainer.terminal import start_log
    from stonk_trainer.training import callbacks, resumable

    start_log()
    shape = task.gpt_hidden_size, task.gpt_layers, task.gpt_heads, task.gpt_positions
    new_gpt(folder / "model", CODES, *shape, seed=seed)
    tokens = np.random.default_rng(seed).integers(0, CODES, (1024, task.context_len))

    plain = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    decayed = [p for name, p in plain.named_parameters() if "norm" not in name]
    others = [p for name, p in plain.named_parameters() if "norm" in name]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = config.adam_beta1, config.adam_beta2
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=True)
    schedule = get_scheduler(config.lr_scheduler_type, optimiser, config.warmup_steps, config.max_steps)
    batches: list[torch.Tensor] = []  # as the trainer draws them

    def plain_step(ids_BT: torch.Tensor) -> None:
        logits_BTV = plain(ids_BT, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), config.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()

    class InTurn(TrainerCallback):
        """After each stretch of the trainer, the plain loop takes the same steps."""

        def __init__(self):
            self.ours, self.theirs, self.began = [], [], None

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % steps:
                return
            self.ours.append(steps * tokens_per_step / (time.process_time() - self.began))
            began = time.process_time()
            for ids_BT in batches:
                plain_step(ids_BT)
            self.theirs.append(steps * tokens_per_step / (time.process_time() - began))
            batches.clear()
            self.began = time.process_time()

        def on_train_begin(self, args, state, control, **kwargs):
            self.began = time.process_time()

    class Trainer(resumable.SmallVocabularySFTTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            batches.append(inputs["input_ids"])
            return super().training_step(model, inputs, num_items_in_batch)

    config.model_init_kwargs = loading.loading_options(recipe.model)
    tokens_per_step = config.per_device_train_batch_size * task.context_len
    in_turn = InTurn()
    trainer = Trainer(
        model=str(folder / "model"),
        processing_class=loading.load_tokenizer(str(folder / "model")),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": tokens.tolist()}),
    )
    callbacks.watch(trainer)
    trainer.add_callback(in_turn)
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    trainer.train()
    pairs = zip(trainer.model.parameters(), plain.parameters(), strict=True)
    apart = max((a - b).abs().max().item() for a, b in pairs)
    print(f"largest difference between weights after {config.max_steps} steps of each: {apart:.1e}")
    if apart > 1e-2:
        sys.exit("the two did not train the same: the comparison means nothing")
    return "training, plain loop", in_turn.ours[1:], in_turn.theirs[1:]  # the first stretch warms up


# ----------------------------------------------------------------------------------------------------------- sampling


def compare_sampling(model_folder: Path, rounds: int, seed: int) -> tuple[str, list[float], list[float]]:
    """(name, tokens per second with the cache, without), a figure per round."""
    import torch

    from stonk_trainer.tasks.btc.gpt import load_gpt, sample_paths

    model = load_gpt(model_folder)
    context_1C = torch.from_numpy(np.random.default_rng(seed).integers(0, CODES, (1, CONTEXT)))

    @torch.inference_mode()
    def without_cache(generator: torch.Generator) -> torch.Tensor:
        ids_NT = context_1C.repeat(PATHS, 1)
        for _ in range(HORIZON):
            logits_NK = model(ids_NT, use_cache=False, logits_to_keep=1).logits[:, -1, :CODES]
            drawn_N1 = torch.multinomial(logits_NK.float().softmax(-1), 1, generator=generator)
            ids_NT = torch.cat([ids_NT, drawn_N1], dim=1)
        return ids_NT[:, CONTEXT:]

    def with_cache(generator: torch.Generator) -> torch.Tensor:
        return sample_paths(model, context_1C, HORIZON, PATHS, CODES, generator=generator)[0]

    speeds: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(rounds + 1):
        drawn = {}
        for name, sample in (("with", with_cache), ("without", without_cache)):
            began = time.process_time()
            drawn[name] = sample(torch.Generator().manual_seed(turn))
            speeds[name].append(PATHS * HORIZON / (time.process_time() - began))
        same = (drawn["with"] == drawn["without"]).float().mean().item()
        if same < 0.9:
            sys.exit(f"only {same:.0%} of the tokens are the same: the comparison means nothing")
    return "sampling with, without a cache", speeds["with"][1:], speeds["without"][1:]


if __name__ == "__main__":
    sys.exit(main())
