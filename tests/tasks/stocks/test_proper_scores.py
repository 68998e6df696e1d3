"""What scaling of advantages does to a proper score (arXiv:2508.11800): to which confidence a policy is driven."""

import numpy as np
import pytest

TRUE = 0.53  # probability of UP
ANSWERS = 4  # of a group: all about one row, so that all meet the same outcome
SPREAD = 0.05  # standard deviation of the confidences that a policy states


def pull(confidence, scaling, groups, other, steps=40_000 // ANSWERS):
    """Expected change of a policy that states P(UP) near `confidence` and is paid 1 - (p - y)² and `other`, noise.

    Advantages are scaled as GRPOTrainer scales them: each reward less its group's mean, divided by the standard
    deviation of its group, of the whole batch, or by nothing.
    """
    rng = np.random.default_rng(0)
    outcomes_SG = rng.random((steps // groups, groups, 1)) < TRUE
    noise_SGA = rng.standard_normal((steps // groups, groups, ANSWERS))
    stated_SGA = np.clip(confidence + SPREAD * noise_SGA, 0, 1)
    rewards_SGA = 1 - (stated_SGA - outcomes_SG) ** 2 + other * rng.standard_normal(noise_SGA.shape)
    advantages_SGA = rewards_SGA - rewards_SGA.mean(axis=2, keepdims=True)
    if scaling == "group":
        advantages_SGA /= rewards_SGA.std(axis=2, ddof=1, keepdims=True) + 1e-4
    elif scaling == "batch":
        advantages_SGA /= rewards_SGA.std(axis=(1, 2), ddof=1, keepdims=True) + 1e-4
    return float((advantages_SGA * noise_SGA).mean())  # the noise is the score of a normal policy's mean


def optimum(scaling, groups=1, other=0.01):
    """The confidence from 0.5 up at which the pull upwards ends."""
    grid = np.arange(0.50, 1.0, 0.01)
    ends = [confidence for confidence in grid if pull(confidence, scaling, groups, other) <= 0]
    return float(ends[0]) if ends else 1.0


@pytest.mark.parametrize("other", [0.001, 0.005, 0.02])  # the other rewards, nearly at rest
def test_scaled_by_its_own_group_a_proper_score_pays_for_overconfidence(other):
    assert optimum("group", other=other) >= 0.58


@pytest.mark.parametrize("other", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("scaling, groups", [("none", 1), ("batch", 4), ("batch", 8), ("batch", 16)])
def test_without_scaling_or_scaled_over_four_groups_the_truth_is_best(scaling, groups, other):
    assert 0.50 <= optimum(scaling, groups, other) <= 0.55


def test_scaled_over_one_group_the_batch_is_the_group():
    assert optimum("batch", 1) == optimum("group")
