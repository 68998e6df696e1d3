import itertools

import numpy as np
import pytest
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc import rewards
from stonk_trainer.tasks.btc.codec import Codec, CodecConfig

# Tokens of the codec below: 0..7 are -1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75 standard deviations.
CONTEXT = "3 4 3 4 3 4"
SCALE = 0.02


@pytest.fixture(scope="module")
def codec():
    """A codec that rounds each day to the nearest of eight even levels, whatever came before."""
    codec = Codec(CodecConfig(codebook_size=8, hidden_size=4, code_dim=2, num_blocks=1, kernel_size=3))
    codec.start_as_identity()
    levels_KD = torch.stack([torch.linspace(-1.75, 1.75, 8), torch.zeros(8)], dim=1)
    codec.set_codebook(levels_KD, torch.ones(8))
    return codec


def earned(codec, names, completions, future_tokens, future_returns=None, prompts=None, cost_bps=0.0, scale=SCALE):
    """By name, the rewards of completions, all with the same future and, unless told, of the same context."""
    future_returns = [0.0] * len(future_tokens) if future_returns is None else future_returns
    count = len(completions)
    columns = {
        "future_tokens": [future_tokens] * count,
        "future_returns": [future_returns] * count,
        "scale": [scale] * count,
        "trainer_state": None,
    }
    functions = [rewards.trl_reward(name, codec, len(future_tokens), cost_bps) for name in names]
    assert [function.__name__ for function in functions] == list(names)
    return {f.__name__: f(prompts=prompts or [CONTEXT] * count, completions=completions, **columns) for f in functions}


# ------------------------------------------------------------------------------------------------ token_acc, return_mse


def test_token_accuracy_is_the_share_of_tokens_that_are_the_true_ones(codec):
    found = earned(codec, ["token_acc"], ["1 2 3 4", "1 2 3 0", "0 0 3 0", "2 3 4 1"], [1, 2, 3, 4])
    assert found["token_acc"] == [1.0, 0.75, 0.25, 0.0]


def test_the_squared_error_is_of_log_returns_in_the_assets_own_units(codec):
    """Token 4 is a quarter of a standard deviation of 2 %: a log return of 0.005."""
    found = earned(codec, ["return_mse"], ["4 4", "4 6", "0 7"], [4, 4], [0.005, 0.005])["return_mse"]
    assert found == pytest.approx([0.0, -(0.02**2) / 2, -(0.04**2 + 0.03**2) / 2], abs=1e-9)
    wilder = earned(codec, ["return_mse"], ["4 6"], [4, 4], [0.015, 0.015], scale=0.06)["return_mse"]
    assert wilder == pytest.approx([-(0.06**2) / 2])


def test_a_sampled_future_is_decoded_after_its_own_context(random_codec):
    """With weights that look back, the days of a future are those of decoding context and future as one series."""
    codec, rng = random_codec(patch_size=2), np.random.default_rng(0)
    contexts_BC, samples_BH = rng.integers(0, 8, (3, 20)), rng.integers(0, 8, (3, 4))
    days_BD = rewards.decode_futures(codec, contexts_BC, samples_BH, np.array([1.0, 2.0, 3.0]))
    whole = codec.decode(torch.from_numpy(np.concatenate([contexts_BC, samples_BH], axis=1)))[:, -8:].numpy()
    assert days_BD.shape == (3, 8)
    assert days_BD == pytest.approx(whole * np.array([[1.0], [2.0], [3.0]]), rel=1e-5, abs=1e-5)
    elsewhere = rewards.decode_futures(codec, contexts_BC[::-1].copy(), samples_BH, np.array([1.0, 2.0, 3.0]))
    assert abs(elsewhere[0] - days_BD[0]).max() > 1e-6


# --------------------------------------------------------------------------------------------------------------- crps


def test_crps_by_hand():
    """Three samples of one day: 1, 2 and 5 against 3. Each distance from the two others counts 1/(3 - 2)."""
    found = rewards.crps(np.array([[1.0], [2.0], [5.0]]), np.full((3, 1), 3.0), ["a"] * 3)
    assert found == pytest.approx([-2 + (1 + 4), -1 + (1 + 3), -2 + (4 + 3)])


def test_crps_averages_over_the_days_and_keeps_groups_apart():
    paths_BD = np.array([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]])
    groups = ["a", "a", "a", "b", "b", "b"]
    found = rewards.crps(paths_BD, np.full((6, 2), [3.0, 1.0]), groups)
    assert found[:3] == pytest.approx([(3 - 1) / 2, (3 - 1) / 2, (5 - 1) / 2])
    assert found[3:] == pytest.approx([-7.0] * 3)
    mixed = [3, 0, 4, 1, 5, 2]
    assert rewards.crps(paths_BD[mixed], np.full((6, 2), [3.0, 1.0]), [groups[i] for i in mixed]) == pytest.approx(
        found[mixed]
    )


@pytest.mark.parametrize("group_size", [3, 4])
def test_crps_less_the_mean_of_the_group_has_the_gradient_of_minus_the_crps(group_size):
    """Exactly, over every group that a policy on five values can draw, with the advantages as TRL forms them.

    The mean of a group holds a sample's distances from the others too, which is why each distance counts 1/(G - 2) and
    not 1/(G - 1). What is left is the factor (G - 1)/G that a group's mean as baseline always costs.
    """
    values_N, true = np.array([-2.0, -0.5, 0.0, 1.0, 4.0]), 0.3
    logits_N = torch.tensor([0.1, -0.4, 0.7, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    policy_N = logits_N.softmax(-1)
    distance_N = torch.tensor(np.abs(values_N - true))
    apart_NN = torch.tensor(np.abs(values_N[:, None] - values_N[None]))
    crps = policy_N @ distance_N - 0.5 * policy_N @ apart_NN @ policy_N
    (of_minus_crps_N,) = torch.autograd.grad(-crps, logits_N)

    p_N = policy_N.detach().numpy()
    scores_NN = np.eye(len(p_N)) - p_N  # row x: d log p(x) / d logits
    estimated_N = np.zeros(len(p_N))
    for drawn in itertools.product(range(len(p_N)), repeat=group_size):
        drawn = list(drawn)
        rewards_G = rewards.crps(values_N[drawn][:, None], np.full((group_size, 1), true), ["a"] * group_size)
        advantages_G = rewards_G - rewards_G.mean()
        estimated_N += p_N[drawn].prod() * (advantages_G[:, None] * scores_NN[drawn]).mean(axis=0)
    assert estimated_N == pytest.approx((group_size - 1) / group_size * of_minus_crps_N.numpy(), rel=1e-9, abs=1e-12)


def test_the_mean_over_a_group_with_half_the_spread_is_minus_its_crps():
    from scoringrules import crps_ensemble

    samples_G = np.random.default_rng(0).normal(size=8)
    found = rewards.crps(samples_G[:, None], np.full((8, 1), 0.4), ["a"] * 8, spread=0.5)
    assert found.mean() == pytest.approx(-crps_ensemble(0.4, samples_G, estimator="pwm"))


@pytest.mark.parametrize("samples", [1, 2])
def test_crps_of_fewer_than_three_samples_of_a_context_says_what_to_set(codec, samples):
    prompts = ["3 3 3 3 3 3"] * 3 + [CONTEXT] * samples
    with pytest.raises(UserError, match="num_generations"):
        earned(codec, ["crps"], ["4 4"] * len(prompts), [4, 4], prompts=prompts)


@pytest.mark.parametrize("name", ["token_acc", "return_mse", "crps", "pnl"])
def test_permuting_the_samples_permutes_their_rewards(codec, name):
    completions = ["1 2 3", "7 0 4", "4 4 4", "0 0 6", "5 1 3", "2 2 7"]
    prompts = [CONTEXT, CONTEXT, CONTEXT, "0 0 0 0 0 0", "0 0 0 0 0 0", "0 0 0 0 0 0"]
    order = [4, 1, 5, 0, 3, 2]
    columns = {"future_tokens": [1, 0, 3], "future_returns": [0.01, -0.02, 0.003], "cost_bps": 5.0}
    found = earned(codec, [name], completions, prompts=prompts, **columns)[name]
    moved = earned(codec, [name], [completions[i] for i in order], prompts=[prompts[i] for i in order], **columns)
    assert len(set(found)) > 2
    assert moved[name] == pytest.approx([found[i] for i in order])


# ---------------------------------------------------------------------------------------------------------------- pnl


def test_profit_is_what_the_path_says_to_hold_less_the_cost_of_each_trade(codec):
    """Long, long, short, short on days of +1, -2, -3, +1 %, at 10 basis points: a purchase, then a turn of two."""
    true = [0.01, -0.02, -0.03, 0.01]
    completions = ["7 4 0 3", "3 3 3 3", "4 5 6 7"]
    free = earned(codec, ["pnl"], completions, [0, 0, 0, 0], true)["pnl"]
    assert free == pytest.approx([(0.01 - 0.02 + 0.03 - 0.01) / 4, 0.03 / 4, -0.03 / 4])
    paid = earned(codec, ["pnl"], completions, [0, 0, 0, 0], true, cost_bps=10)["pnl"]
    assert paid == pytest.approx([(0.01 - 0.003) / 4, (0.03 - 0.001) / 4, (-0.03 - 0.001) / 4])


def test_a_path_that_does_not_move_holds_nothing():
    sampled_BD = np.array([[0.0, 0.0], [0.01, 0.0], [0.0, -0.01]])
    found = rewards.profit(sampled_BD, np.full((3, 2), 0.02), cost=0.001)
    assert found == pytest.approx([0.0, (0.02 - 0.001 - 0.001) / 2, (-0.02 - 0.001) / 2])


# ------------------------------------------------------------------------------------------------------------ samples


def test_several_rewards_come_in_the_order_they_are_named_and_each_is_itself(codec):
    completions, future = ["4 4", "4 6", "0 7"], ([4, 4], [0.005, 0.005])
    together = earned(codec, ["return_mse", "token_acc", "pnl", "crps"], completions, *future)
    for name, found in together.items():
        assert all(isinstance(value, float) for value in found)
        assert found == earned(codec, [name], completions, *future)[name]


@pytest.mark.parametrize("completion, count", [("1 2", 2), ("1 2 3 4", 4), ("", 0)])
@pytest.mark.parametrize("name", ["token_acc", "crps"])
def test_a_sample_of_the_wrong_length_is_an_error_that_names_suppress_tokens(codec, name, completion, count):
    with pytest.raises(UserError, match=f"has {count} market tokens instead of 3.*suppress_tokens"):
        earned(codec, [name], ["1 2 3", completion, "1 2 3"], [1, 2, 3])
