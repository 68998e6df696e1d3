"""What one step of `stonk grpo` does to a GPT of market tokens: the gradient, the KL, the fixed horizon.

The real trainer is run through its entry point. Only its class is replaced by one that remembers: the samples and their
rewards as TRL computed them, and the gradient before it is clipped.
"""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from stonk_trainer import grpo
from stonk_trainer.tasks.btc.gpt import new_gpt
from stonk_trainer.tasks.btc.tokens import from_text
from stonk_trainer.training import grouped

pytestmark = pytest.mark.slow

CODES, CONTEXT, HORIZON, GROUP = 8, 12, 5, 4
RUN = ["--config", "btc/rl", "--steps", "1", "--context-len", str(CONTEXT), "--horizon", str(HORIZON)]
RUN += ["--num_generations", str(GROUP), "--batch-episodes", "2", "--logging_steps", "1", "--save_strategy", "no"]


@pytest.fixture
def spied(monkeypatch):
    """The trainer of a run, with `rounds` (prompts, sampled ids and rewards of each generation) and `gradient`."""
    seen = []

    class Spy(grouped.SharedPrefixGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.rounds, self.gradient = [], None
            seen.append(self)

        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            rewards_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self.rounds.append((prompts, completion_ids_list, rewards_BF))
            return rewards_BF

        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, inputs, num_items_in_batch)
            self.gradient = {name: p.grad.clone() for name, p in model.named_parameters()}  # of the steps so far
            return loss

    def run(model, csv, out, *flags):
        monkeypatch.setattr(grouped, "SharedPrefixGRPOTrainer", Spy)
        grpo.main([*RUN, "--in", str(model), "--out", str(out), "--csv", csv, *flags])
        return seen[-1]

    return run


@pytest.fixture(scope="module")
def small_gpt(gpt_folder):
    return gpt_folder(codebook_size=CODES)


@pytest.fixture(scope="module")
def talkative_gpt(tmp_path_factory, random_codec):
    """A GPT that would say a special token nine times out of ten: it has a dimension that is the same at all places."""
    folder = tmp_path_factory.mktemp("models") / "talkative"
    new_gpt(folder, CODES, hidden_size=16, layers=1, heads=2, positions=64, seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 1.0
        model.get_output_embeddings().weight[CODES:, 0] = 0.8
        model.get_output_embeddings().weight[:CODES, 0] = 0.0
    model.save_pretrained(folder)
    random_codec(codebook_size=CODES).save_pretrained(folder / "codec")
    return folder


def log_probs(model, prompt, completion, temperature=1.0):
    """(horizon,) log pi(token | context, tokens before), plainly: softmax over the whole vocabulary."""
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def flat(gradient):
    return torch.cat([gradient[name].reshape(-1) for name in sorted(gradient)])


def logged(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------------- gradient


@pytest.mark.parametrize(
    "flags, weights, accumulation, temperature",
    [
        (["--reward", "token_acc"], [1.0], 1, 1.0),
        (["--reward", "token_acc", "crps", "--reward_weights", "1", "0.5"], [1.0, 0.5], 2, 0.7),
    ],
    ids=["one reward", "two rewards, accumulation, temperature"],
)
def test_the_gradient_of_reinforce_is_the_formula(
    flags, weights, accumulation, temperature, small_gpt, market_csv, tmp_path, spied
):
    """mean over samples of (R - mean R of its group) x sum over the horizon of grad log pi(token), over the horizon.

    The last division is TRL's dr_grpo: a constant, `max_completion_length`, which is the horizon here. The gradient is
    of the loss, which is minus that.
    """
    step = ["--gradient_accumulation_steps", str(accumulation), "--temperature", str(temperature), "--lr", "1e-3"]
    trainer = spied(small_gpt, market_csv, tmp_path / "run", *flags, *step, "--max_grad_norm", "1e9")
    (generated,) = trainer.rounds
    prompts, samples, rewards_BF = generated
    totals_B = (rewards_BF * torch.tensor(weights)).sum(dim=1)
    assert len(samples) == 2 * GROUP * accumulation
    groups = [range(start, start + GROUP) for start in range(0, len(samples), GROUP)]
    assert all(len({prompts[i] for i in group}) == 1 for group in groups)

    model = AutoModelForCausalLM.from_pretrained(small_gpt, dtype=torch.float32)
    objective = 0.0
    for group in groups:
        baseline = totals_B[list(group)].mean()
        for i in group:
            log_pi = log_probs(model, from_text(prompts[i]), samples[i], temperature).sum()
            objective = objective + (totals_B[i] - baseline) * log_pi
    (objective / len(samples) / HORIZON).backward()
    formula = flat({name: p.grad for name, p in model.named_parameters()})
    assert formula.norm() > 1e-4
    assert (flat(trainer.gradient) + formula).norm() < 1e-5 * formula.norm()
    (line,) = [line for line in logged(tmp_path / "run") if "grad_norm" in line]
    assert line["grad_norm"] == pytest.approx(formula.norm().item(), rel=1e-4) and "kl" not in line


# ----------------------------------------------------------------------------------------------------------------- KL


def test_the_logged_kl_is_the_exact_one_in_expectation(small_gpt, market_csv, tmp_path, spied):
    """Over every pair of tokens of the vocabulary, specials too, weighed by how likely the policy says them.

    The policy has moved from its reference by two steps at a high rate. TRL estimates with exp(d) - d - 1, d = log of
    reference over policy (Schulman 2020, k3).
    """
    flags = ["--algorithm", "grpo", "--kl_coef", "0.1", "--lr", "5e-2", "--steps", "2", "--horizon", "2", "--seed", "3"]
    trainer = spied(small_gpt, market_csv, tmp_path / "run", *flags)
    first, second = [line["kl"] for line in logged(tmp_path / "run") if "kl" in line]
    assert abs(first) < 1e-7 and second > 1e-4
    context = [3, 4, 1, 6, 4, 3]
    policy, reference = trainer.model, trainer.ref_model
    vocabulary = policy.config.vocab_size
    expected = exact = 0.0
    with torch.inference_mode():
        for pair in itertools.product(range(vocabulary), repeat=2):
            batch = {
                "prompt_ids": torch.tensor([context]),
                "prompt_mask": torch.ones(1, len(context), dtype=torch.long),
                "completion_ids": torch.tensor([pair]),
                "completion_mask": torch.ones(1, 2, dtype=torch.long),
                "advantages": torch.zeros(1),
                "num_items_in_batch": torch.tensor(2),
                "ref_per_token_logps": log_probs(reference, context, pair)[None],
            }
            trainer._compute_loss(policy, batch)
            expected += log_probs(policy, context, pair).sum().exp() * trainer._metrics["train"]["kl"][-1]
        for before in [(), *((token,) for token in range(vocabulary))]:
            ids = torch.tensor([[*context, *before]])
            p, q = (model(ids).logits[0, -1].log_softmax(-1) for model in (policy, reference))
            reached = log_probs(policy, context, before).sum().exp() if before else 1.0
            exact += reached * (p.exp() * (p - q)).sum() / 2  # mean of the two places
    assert exact > 1e-4
    assert float(expected) == pytest.approx(float(exact), rel=1e-3)


# ------------------------------------------------------------------------------------------------------- the horizon


def test_every_sample_is_the_horizon_long_without_a_special_token_and_is_learnt_from(
    talkative_gpt, market_csv, tmp_path, spied
):
    model = AutoModelForCausalLM.from_pretrained(talkative_gpt)
    with torch.inference_mode():
        special = model(torch.tensor([[3, 4, 1, 6]])).logits.softmax(-1)[..., CODES:].sum(-1)
    assert special.min() > 0.9
    trainer = spied(talkative_gpt, market_csv, tmp_path / "run", "--lr", "1e-3")
    ((_, samples, _),) = trainer.rounds
    assert {len(sample) for sample in samples} == {HORIZON}
    assert set(itertools.chain(*samples)) <= set(range(CODES)) and len(set(itertools.chain(*samples))) > 2
    (line,) = [line for line in logged(tmp_path / "run") if "grad_norm" in line]
    assert line["completions/clipped_ratio"] == 1.0  # TRL takes them all for cut off
    assert line["grad_norm"] > 0 and np.isfinite(line["grad_norm"])


def test_a_model_that_may_say_special_tokens_is_refused_with_the_key_it_lacks(
    talkative_gpt, market_csv, tmp_path, capsys
):
    free = tmp_path / "model"
    shutil.copytree(talkative_gpt, free)
    generation = json.loads((free / "generation_config.json").read_text())
    assert generation.pop("suppress_tokens") == list(range(CODES, CODES + 4))
    (free / "generation_config.json").write_text(json.dumps(generation))
    with pytest.raises(SystemExit) as end:
        grpo.main([*RUN, "--in", str(free), "--out", str(tmp_path / "run"), "--csv", market_csv])
    assert end.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("error: ")] == error[-1:] and "suppress_tokens" in error[-1]
