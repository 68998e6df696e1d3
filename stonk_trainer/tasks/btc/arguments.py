"""The recipe keys of the btc task, and those that its commands share."""

from __future__ import annotations

from dataclasses import dataclass

from stonk_trainer.errors import UserError
from stonk_trainer.options import option
from stonk_trainer.recipe import check_day, check_ranges
from stonk_trainer.task import ForecastArguments

REWARDS = ("token_acc", "return_mse", "crps", "pnl")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of sampled paths, in tables and pictures


@dataclass
class Market:
    """Recipe keys that say which prices are read, and how dates split them."""

    dataset_name: str = option(
        "embedded:markets",
        "Daily prices: a CSV file (date, close) or a folder of them, embedded:markets (20 S&P 500 "
        "companies, BTC, ETH, LTC) or one of these alone, such as embedded:BTC.",
        "--csv",
    )
    tickers: list[str] | None = option(None, "Only these series; all when left out.")
    train_end: str | None = option(None, "Last day training may see, YYYY-MM-DD; left out: the codec's.")
    validation_end: str | None = option(None, "Last day of validation; left out: the codec's. Test is the rest.")

    def __post_init__(self):
        check_days(self.train_end, self.validation_end)


def check_days(train_end: str | None, validation_end: str | None) -> None:
    """Raise UserError unless both are days, YYYY-MM-DD, or None, and validation ends after training."""
    check_day("train_end", train_end)
    check_day("validation_end", validation_end)
    if train_end and validation_end and train_end >= validation_end:
        raise UserError(f"validation_end: {validation_end} must come after train_end {train_end}")


@dataclass
class BtcArguments(ForecastArguments, Market):
    """Recipe keys of the btc task in `stonk sft` and `stonk grpo`."""

    data: str | None = option(
        None,
        "Text file of tokens, a series per line (stonk codec encode), to pretrain on instead of prices; "
        "the last tenth of each series is held out.",
    )
    codec: str | None = option(None, "The codec: a folder or a .pt file; left out: the one in the model's folder.")
    context_len: int = option(128, "Tokens of a training window, or before a sampled future.")
    horizon: int = option(32, "Tokens sampled in RL: exactly so many, no more, no fewer.")
    reward: list[str] = option(
        ["token_acc"],
        "Reward functions: token_acc, return_mse, crps, pnl, or an import path such as my_rewards:sharpe; "
        "weigh several with reward_weights.",
    )
    cost_bps: float = option(5.0, "pnl: cost of trading, in hundredths of a percent of the amount traded.")
    context_step: int | None = option(
        None, "Tokens from one window or context to the next; left out: half a window in SFT, 1 in RL."
    )
    gpt_hidden_size: int = option(64, "A new GPT: width.")
    gpt_layers: int = option(3, "A new GPT: layers.")
    gpt_heads: int = option(4, "A new GPT: attention heads, a divisor of the width.")
    gpt_positions: int = option(1024, "A new GPT: the longest sequence, context and future.")

    def __post_init__(self):
        ForecastArguments.__post_init__(self)
        Market.__post_init__(self)
        sizes = "context_len horizon context_step gpt_hidden_size gpt_layers gpt_heads"
        check_ranges(self, {"[1, inf)": sizes, "[0, inf)": "cost_bps"})
        if self.gpt_hidden_size % (2 * self.gpt_heads):
            raise UserError(
                f"gpt_heads: {self.gpt_heads} heads of an even size do not make up gpt_hidden_size "
                f"{self.gpt_hidden_size}"
            )
        if self.gpt_positions < self.context_len + self.horizon:
            raise UserError(
                f"gpt_positions: {self.gpt_positions} is less than context_len {self.context_len} + horizon "
                f"{self.horizon}"
            )
