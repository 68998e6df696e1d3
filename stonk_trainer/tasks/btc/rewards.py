"""Rewards of a sampled future against the true one. Each gets the samples as text and the rows' columns, as TRL does.

token_acc    share of the sampled tokens that are the true ones, in [0, 1]. It rewards the likeliest token, not an
             honest spread: a policy trained on it alone ends up forecasting calm
return_mse   minus the mean squared error of the daily log returns, in the asset's own units (0.02² for 2 %); it too
             is best served by a path without spread
crps         -|x - y| + sum |x - x'| / (G - 2) over the other samples x' of the same context, G with it, averaged over
             the days, in log returns. Less the mean of its group, as TRL trains on it, its score-function gradient is
             (G - 1)/G times that of minus the CRPS, E|X - y| - ½ E|X - X'|, since both samples of the second term
             follow the policy; proper, so the spread stays honest (Gneiting & Raftery 2007)
pnl          mean daily log return of holding what the path says: long on a day it rises, short on a day it falls,
             decided before that day, less `cost_bps` for what is traded
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.tasks.btc.codec import Codec
from stonk_trainer.tasks.btc.tokens import from_text


def trl_reward(name: str, codec: Codec, horizon: int, cost_bps: float) -> Reward:
    """The reward of this name as TRL calls it; cost_bps: of trading, in hundredths of a percent."""

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        samples_BH = read_samples(completions, horizon)
        true_BH, true_BD = np.array(columns["future_tokens"]), np.array(columns["future_returns"])
        if name == "token_acc":  # needs no decoding
            return token_accuracy(samples_BH, true_BH).tolist()
        contexts_BC = np.array([from_text(prompt) for prompt in prompts])
        paths_BD = decode_futures(codec, contexts_BC, samples_BH, columns["scale"])
        if name == "crps" and "log_metric" in columns:  # TRL's: what the reward is to lower
            columns["log_metric"]("true_crps", -float(crps(paths_BD, true_BD, prompts, spread=0.5).mean()))
        return reward_values([name], samples_BH, true_BH, paths_BD, true_BD, prompts, cost_bps)[name].tolist()

    reward.__name__ = name
    return reward


def reward_values(
    names: Sequence[str],
    samples_BH: np.ndarray,
    true_BH: np.ndarray,
    paths_BD: np.ndarray,
    true_BD: np.ndarray,
    groups: Sequence[str],
    cost_bps: float,
    spread: float | None = None,
) -> dict[str, np.ndarray]:
    """By name, (B,) the rewards of sampled tokens and of the daily log returns they decode to.

    groups: what each sample was drawn for, and spread: see `crps`.
    """
    functions = {
        "token_acc": lambda: token_accuracy(samples_BH, true_BH),
        "return_mse": lambda: return_mse(paths_BD, true_BD),
        "crps": lambda: crps(paths_BD, true_BD, groups, spread),
        "pnl": lambda: profit(paths_BD, true_BD, cost_bps / 1e4),
    }
    return {name: functions[name]() for name in names}


def read_samples(completions: Sequence[str], horizon: int) -> np.ndarray:
    """(B, horizon) tokens. Raises UserError when a sample has not exactly `horizon` market tokens."""
    samples = [from_text(completion) for completion in completions]
    wrong = next((len(sample) for sample in samples if len(sample) != horizon), None)
    if wrong is not None:
        raise UserError(
            f"a sample has {wrong} market tokens instead of {horizon}: the model must not generate special tokens: set "
            "suppress_tokens in its generation_config.json, as `stonk sft` with btc/pretrain writes it"
        )
    return np.array(samples)


def decode_futures(codec: Codec, contexts_BC: np.ndarray, samples_BH: np.ndarray, scales_B: np.ndarray) -> np.ndarray:
    """(B, horizon · patch_size) daily log returns of the sampled tokens, each after its context."""
    seen_BC = contexts_BC[:, -codec.config.lead_in :]
    tokens_BN = torch.from_numpy(np.concatenate([seen_BC, samples_BH], axis=1))
    days = samples_BH.shape[1] * codec.config.patch_size
    return codec.decode(tokens_BN)[:, -days:].double().numpy() * np.asarray(scales_B)[:, None]


def token_accuracy(samples_BH: np.ndarray, true_BH: np.ndarray) -> np.ndarray:
    return (samples_BH == true_BH).mean(axis=1)


def return_mse(sampled_BD: np.ndarray, true_BD: np.ndarray) -> np.ndarray:
    return -np.square(sampled_BD - true_BD).mean(axis=1)


def crps(sampled_BD: np.ndarray, true_BD: np.ndarray, groups: Sequence[str], spread: float | None = None) -> np.ndarray:
    """groups: what each sample was drawn for. Raises UserError for a group that is too small.

    spread: weight of a sample's mean distance from the G - 1 others. With 0.5 the mean over a group is minus its CRPS.
    None: what training needs, (G - 1)/(G - 2): a sample's distances stand in the rewards of the others too, and so in
    the mean of the group that is taken off as baseline. With a weight of 1 the distances would count (G - 2)/(G - 1)
    of what they must: a normal forecast from groups of 8 would end up with 0.76 of the true spread.
    """
    fewest = 3 if spread is None else 2
    rewards_B = -np.abs(sampled_BD - true_BD).mean(axis=1)
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    for same in members.values():
        if len(same) < fewest:
            raise UserError(
                f"crps compares samples of one context, and there are {len(same)}: set num_generations (and "
                f"num_generations_eval) to {fewest} or more, and per_device_train_batch_size to a multiple of it"
            )
        paths_GD = sampled_BD[same]
        apart_GG = np.abs(paths_GD[:, None] - paths_GD[None]).mean(axis=2)
        weight = (len(same) - 1) / (len(same) - 2) if spread is None else spread
        rewards_B[same] += weight * apart_GG.sum(axis=1) / (len(same) - 1)
    return rewards_B


def profit(sampled_BD: np.ndarray, true_BD: np.ndarray, cost: float) -> np.ndarray:
    """cost: of trading the whole position once, as a fraction; going from long to short trades two."""
    positions_BD = np.sign(sampled_BD)
    before_BD = np.concatenate([np.zeros((len(positions_BD), 1)), positions_BD[:, :-1]], axis=1)
    return (positions_BD * true_BD - cost * np.abs(positions_BD - before_BD)).mean(axis=1)
