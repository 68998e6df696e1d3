"""Intervals."""

import numpy as np
import pytest

from stonk_trainer.evaluation.stats import wilson


def test_wilson_is_the_interval_of_the_textbook():
    low, high = wilson(np.array([0.8, 0, np.nan]), np.array([10, 10, 0]))
    assert (low[0], high[0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert low[1] == pytest.approx(0, abs=1e-12) and high[1] == pytest.approx(0.2775, abs=1e-4)
    assert np.isnan(low[2])
