"""Rollouts with drafted tokens beside rollouts without, on the rows of a recipe.

    python benchmarks/drafts.py --model runs/demo/warmup/best_model
    python benchmarks/drafts.py --model runs/demo/warmup/best_model --dtype float32 --drafts 2 4 8 --greedy

Each way of drafting answers the same prompts with the same uniform numbers, batch after batch, in turns; as in
training, answers of earlier batches are drafted from. Prints the passes of the model, seconds, how many answers are the
same token for token, and what a pass of several tokens costs beside one of one.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from stonk_trainer.models import chat, decoding, drafting, loading
from stonk_trainer.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="stocks/demo/stage1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--drafts", nargs="+", default=["auto", "2", "4"], help="values of draft_tokens")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=1, help="of a batch")
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args()
    args = load_recipe(["--config", options.recipe, "--model", options.model, "--out", "unused"], trainer="grpo")
    tokenizer = loading.load_tokenizer(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    rows, group, limit = args.task.rl_dataset("train"), args.train.num_generations, args.train.max_completion_length
    ways = ["0", *options.drafts]
    drafters = {way: drafting.Drafter(drafting.tokens_of(way), lasting=True) for way in ways}
    drafters["0"].is_off = False  # so that its passes are counted
    seconds, answers, tokens = dict.fromkeys(ways, 0.0), {way: [] for way in ways}, 0
    for batch in range(options.batches):
        chosen = [rows[batch * options.prompts + number]["prompt"] for number in range(options.prompts)]
        texts = [text for text in chat.prompts(chosen, tokenizer) for _ in range(group)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        draws = np.array([np.random.default_rng([batch, row]).random(limit) for row in range(len(texts))])
        for way in ways if batch % 2 else ways[::-1]:
            started = time.perf_counter()
            with torch.inference_mode():
                found = model.generate(
                    **inputs, max_new_tokens=limit, do_sample=not options.greedy, top_k=0, top_p=1.0, temperature=1.0,
                    eos_token_id=chat.stop_tokens(model.generation_config, tokenizer),
                    pad_token_id=tokenizer.pad_token_id,
                    custom_generate=partial(
                        decoding.decode, draws_BC=torch.from_numpy(draws), drafter=drafters[way]
                    ),
                )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
            seconds[way] += time.perf_counter() - started
            padded = torch.nn.functional.pad(found, (0, limit - found.shape[1]), value=tokenizer.pad_token_id)
            answers[way] += padded.tolist()
        tokens += int((found != tokenizer.pad_token_id).sum())
    print(f"{len(answers['0'])} answers of {tokens / len(answers['0']):.0f} tokens, {group * options.prompts} together")
    for way in ways:
        drafter = drafters[way]
        same = sum(one == other for one, other in zip(answers[way], answers["0"], strict=True))
        cost = "" if drafter.cost is None else f", each further token of a pass {drafter.cost:.0%} of one"
        right = f", {drafter.right / drafter.drafted:.0%} of the drafts right" if drafter.drafted else ""
        print(
            f"draft_tokens {way:>4}: {drafter.passes:5} passes, {seconds[way]:6.1f} s, "
            f"{seconds['0'] / seconds[way]:.2f} times as fast, {same} answers the same{right}{cost}"
        )


if __name__ == "__main__":
    main()
