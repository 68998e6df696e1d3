"""BTC: tokens of a price series' returns, a small GPT over them, and forecasts of the paths that may follow.

codec (`stonk codec train`) → Stage 1, pretraining on many assets (`stonk sft`) → Stage 2, SFT on one asset → Stage 3,
RL on what came after (`stonk grpo`) → `stonk forecast`. Any daily CSV takes the place of BTC.

What a method needs is imported when it is called. The dates that split the data are the codec's: it is trained first,
and every model folder holds a copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.recipe import check_day
from stonk_trainer.task import ForecastArguments, Forecaster, ForecastTask, Row, SamplingConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from stonk_trainer.tasks.btc.codec import Codec

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of sampled paths, in tables and pictures


@dataclass
class Market:
    """Recipe keys that say which prices are read, and how dates split them."""

    dataset_name: str = field(
        default="embedded:markets",
        metadata={
            "help": "Daily prices: a CSV file (date, close) or a folder of them, embedded:markets (20 S&P 500 "
            "companies, BTC, ETH, LTC) or one of these alone, such as embedded:BTC.",
            "aliases": ["--csv"],
        },
    )
    tickers: list[str] | None = field(default=None, metadata={"help": "Only these series; all when left out."})
    train_end: str | None = field(
        default=None, metadata={"help": "Last day training may see, YYYY-MM-DD; left out: the codec's."}
    )
    validation_end: str | None = field(
        default=None, metadata={"help": "Last day of validation; left out: the codec's. Test is the rest."}
    )

    def __post_init__(self):
        check_days(self.train_end, self.validation_end)


def check_days(train_end: str | None, validation_end: str | None) -> None:
    """Raise UserError for what is not a day, and for a validation that ends before training does."""
    check_day("train_end", train_end)
    check_day("validation_end", validation_end)
    if train_end and validation_end and train_end >= validation_end:
        raise UserError(f"validation_end: {validation_end} must come after train_end {train_end}")


@dataclass
class BtcArguments(ForecastArguments, Market):
    """Recipe keys of the btc task in `stonk sft` and `stonk grpo`."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "Text file of tokens, a series per line (stonk codec encode), to pretrain on instead of prices; "
            "the last tenth of each series is held out."
        },
    )
    codec: str | None = field(
        default=None, metadata={"help": "The codec: a folder or a .pt file; left out: the one in the model's folder."}
    )
    context_len: int = field(default=128, metadata={"help": "Tokens of a training window, or before a sampled future."})
    horizon: int = field(default=32, metadata={"help": "Tokens sampled in RL: exactly so many, no more, no fewer."})
    reward: list[str] = field(
        default_factory=lambda: ["token_acc"],
        metadata={
            "help": "Reward functions: token_acc, return_mse, crps, pnl, or an import path such as my_rewards:sharpe; "
            "weigh several with reward_weights."
        },
    )
    cost_bps: float = field(
        default=5.0, metadata={"help": "pnl: cost of trading, in hundredths of a percent of the amount traded."}
    )
    context_step: int | None = field(
        default=None,
        metadata={"help": "Tokens from one window or context to the next; left out: half a window in SFT, 1 in RL."},
    )
    gpt_hidden_size: int = field(default=64, metadata={"help": "A new GPT: width."})
    gpt_layers: int = field(default=3, metadata={"help": "A new GPT: layers."})
    gpt_heads: int = field(default=4, metadata={"help": "A new GPT: attention heads, a divisor of the width."})
    gpt_positions: int = field(default=1024, metadata={"help": "A new GPT: the longest sequence, context and future."})

    def __post_init__(self):
        ForecastArguments.__post_init__(self)
        Market.__post_init__(self)
        for name in ("context_len", "horizon", "context_step", "gpt_hidden_size", "gpt_layers", "gpt_heads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.cost_bps < 0:
            raise UserError(f"cost_bps: {self.cost_bps} must be 0 or more")
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


class Btc(ForecastTask):
    """Forecasts of price paths by a small GPT over market tokens."""

    Arguments = BtcArguments
    REWARDS = ("token_acc", "return_mse", "crps", "pnl")
    UNSUPPORTED_COMMANDS = {
        "eval": "stonk eval judges answers in text: judge a GPT with `stonk forecast --evaluate true`"
    }
    SAMPLES = 200
    RECIPE = "btc/rl"
    args: BtcArguments

    @property
    def codec(self) -> Codec:
        """The codec of the run: the one its arguments name, or else the one in the folder of its model."""
        from stonk_trainer.tasks.btc.dataset import codec_of

        return codec_of(self.args, self.model)

    # ------------------------------------------------------------------------------------------- training

    def sft_dataset(self, split: str) -> Dataset:
        """Windows of tokens: `input_ids`, and for validation `labels` that leave the context out."""
        from stonk_trainer.tasks.btc.dataset import sft_rows

        return sft_rows(self.args, self.codec, split)

    def rl_dataset(self, split: str) -> Dataset:
        """Contexts as text, with what came after: `prompt`, `future_tokens`, `future_returns`, `scale`, and the row's
        `ticker`, `date` (last day known), `label` and `next_return` (of the whole horizon)."""
        from stonk_trainer.tasks.btc.dataset import rl_rows

        rows, self.data[split] = rl_rows(self.args, self.codec, split)
        return rows

    def rewards(self, names: Sequence[str]) -> list[Reward]:
        from stonk_trainer.tasks.btc.rewards import reward_functions

        return reward_functions(names, self.codec, self.args.horizon, self.args.cost_bps)

    def proper_scores(self) -> list[str]:
        """`crps` is one."""
        return [name for name in self.args.reward if name == "crps"]

    def examples(self, row: Row) -> dict[str, str]:
        """What came; one token all the time; what came, from its end to its beginning."""
        from stonk_trainer.tasks.btc.tokens import to_text

        future = list(row["future_tokens"])
        answers = {"what came": future, "one token": [0] * len(future), "backwards": future[::-1]}
        return {name: to_text(tokens) for name, tokens in answers.items()}

    def read(self, rows: Sequence[Row], completions: Sequence[Any]) -> list[Row]:
        """The row, and the direction and size of the sampled path over the whole horizon."""
        from stonk_trainer.tasks.btc.dataset import record

        codec = self.codec
        return [record(codec, row, text) for row, text in zip(rows, completions, strict=True)]

    def trainer_settings(self, trainer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """A sample is exactly `horizon` tokens without an end, which TRL would take for cut off and not learn from."""
        if trainer != "grpo":
            return {}
        for key in ("num_generations", "num_generations_eval"):
            if "crps" in self.args.reward and (values.get(key) or 8) < 3:
                raise UserError(f"{key}: {values[key]}: crps compares samples of one context: set it to 3 or more")
        return {"max_completion_length": self.args.horizon, "mask_truncated_completions": False}

    def new_model(self, folder: Path, seed: int) -> None:
        """Write a GPT with random weights, of the sizes in the arguments, into `folder`."""
        from stonk_trainer.tasks.btc.gpt import new_gpt

        args = self.args
        sizes = args.gpt_hidden_size, args.gpt_layers, args.gpt_heads, args.gpt_positions
        new_gpt(folder, self.codec.config.codebook_size, *sizes, seed=seed)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
        """The model's tokens must be the codec's."""
        from stonk_trainer.tasks.btc.dataset import check_same_codec, check_tokenizer

        codec = self.codec
        check_tokenizer(codec, tokenizer, model)
        check_same_codec(codec, model)

    def add_to_model(self, folder: Path) -> None:
        """The codec goes with every model: whoever has the folder can forecast."""
        self.codec.save_pretrained(folder / "codec")

    # ------------------------------------------------------------------------------------------- forecasts

    def rows_to_forecast(self, first: str | None, last: str | None, horizon: int = 1) -> list[Row]:
        from stonk_trainer.tasks.btc.dataset import rows_to_forecast

        return rows_to_forecast(self.args, self.codec, first, last, horizon)

    def check_row(self, row: Row, where: str) -> Row:
        """A row with a prompt of market tokens and the scale of its series."""
        from stonk_trainer.tasks.btc.dataset import check_row

        return check_row(self.codec, row, where)

    def load_forecaster(self, path: str, sampling: SamplingConfig) -> Forecaster:
        """A GPT that samples paths."""
        from stonk_trainer.tasks.btc.forecaster import RowForecaster

        return RowForecaster(path, self.codec, self.args.context_len, sampling)

    @classmethod
    def recognises(cls, model: Path) -> bool:
        """A GPT has its codec beside it."""
        return (model / "codec").is_dir()

    @classmethod
    def arguments_of_model(cls, model: Path) -> dict[str, Any]:
        """The copy of the codec in the model's folder, wherever the recipe's was."""
        return {"codec": None} if cls.recognises(model) else {}
