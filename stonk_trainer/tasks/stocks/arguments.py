"""The recipe keys of the stocks task."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from stonk_trainer.errors import UserError
from stonk_trainer.options import option
from stonk_trainer.task import ForecastArguments
from stonk_trainer.tasks.stocks.rewards import COMPONENTS

_INDICATOR = r"volume|change_([1-9]|[1-5]\d)d|sma_([2-9]|[1-5]\d)|volatility_([5-9]|[1-5]\d)d"


@dataclass
class StocksArguments(ForecastArguments):
    """Recipe keys of the stocks task."""

    dataset_name: str = option(
        "embedded:sp500",
        "embedded:sp500, a Hub dataset in the deepstock schema, a parquet/JSONL file or folder of that schema, or a "
        "price CSV (date, close).",
        "--csv",
    )
    dataset_split: str = option("train", "Split of the Hub dataset to read.")
    tickers: list[str] | None = option(None, "Only these companies; all when left out.")
    train_end: str = option(
        "auto", "Last day whose outcome training may see, YYYY-MM-DD; auto: the first 70 percent of the days."
    )
    validation_end: str = option(
        "auto", "Last day of validation, YYYY-MM-DD; auto: the next 10 percent. Test is the rest."
    )
    embargo_days: int = option(7, "Calendar days left out after each boundary; at least the horizon of 7 days.")
    natural_distribution: bool = option(
        False, "Keep the market's own share of UP days; otherwise balance them (Stage I)."
    )
    history_days: int = option(15, "Earlier closes shown in the prompt.")
    indicators: list[str] = option(
        ["change_1d", "change_5d", "change_10d", "change_20d", "sma_5", "sma_20", "volatility_20d", "volume"],
        "Indicators shown, in this order: change_Nd, sma_N, volatility_Nd over N days; volume.",
    )
    max_headlines: int = option(8, "Headlines shown.")
    max_financials: int = option(12, "Reported figures shown.")
    financials_lag_days: int = option(0, "Days between the end of a financial year and the day its figures are public.")
    anonymise: bool = option(False, "Hide the company's name and the calendar.")
    reward: list[str] = option(
        ["accuracy", "data_usage", "coherence"],
        f"Reward functions: {', '.join(COMPONENTS)}, or an import path such as my_rewards:humility.",
    )
    evidence: Literal["required", "optional"] = option(
        "optional",
        "What data_usage and coherence need. required: lines of evidence as the prompt asks for them. optional: in an "
        "answer without any, the numbers of its reasoning count as lines.",
    )
    accuracy: Literal["direction", "calibrated"] = option(
        "direction", "direction: 1 if right. calibrated: 1 - (p_up - y)^2, a proper score of the confidence."
    )
    skew_aware: bool = option(False, "Weigh each direction by 0.5 / its base rate: the majority earns no more.")
    milestone_coherence: float = option(0.7, "Milestone: validation coherence above this.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("history_days", "max_headlines", "max_financials", "financials_lag_days"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        if self.history_days > 60:
            raise UserError(f"history_days: {self.history_days} is more than the 60 days kept")
        if self.embargo_days < 7:
            raise UserError(f"embargo_days: {self.embargo_days} is shorter than the horizon of 7 days")
        for name in self.indicators:
            if not re.fullmatch(_INDICATOR, name):
                raise UserError(f"indicators: {name} is not volume, change_Nd, sma_N or volatility_Nd (N below 60)")
