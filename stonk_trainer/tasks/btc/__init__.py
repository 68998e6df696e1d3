"""BTC: tokens of a price series' returns, a small GPT over them, and forecasts of the paths that may follow.

codec (`stonk codec train`) → Stage 1, pretraining on many assets (`stonk sft`) → Stage 2, SFT on one asset → Stage 3,
RL on what came after (`stonk grpo`) → `stonk forecast`. Any daily CSV takes the place of BTC.

What a method needs is imported when it is called. The dates that split the data are the codec's: it is trained first,
and every model folder holds a copy of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonk_trainer.errors import UserError
from stonk_trainer.imports import Reward
from stonk_trainer.task import CardResults, Forecaster, ForecastTask, Row, SamplingConfig, Table
from stonk_trainer.tasks.btc.arguments import REWARDS, BtcArguments

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from stonk_trainer.forecasting.prediction import Predictor
    from stonk_trainer.tasks.btc.codec import Codec


class Btc(ForecastTask):
    """Forecasts of price paths by a small GPT over market tokens."""

    Arguments = BtcArguments
    REWARDS = REWARDS
    UNSUPPORTED_COMMANDS = {
        "eval": "stonk eval judges answers in text: judge a GPT with `stonk forecast --evaluate true`"
    }
    SAMPLES = 200
    RECIPE = "btc/rl"
    ABOUT = "It continues a series of market tokens; the codec in `codec/` turns daily returns into these and back."
    LIMITS = (
        "It knows past returns of one series and nothing else, and its codec rounds them.",
        "It can draw no larger move than its codec's largest code.",
    )
    PIPELINE = "time-series-forecasting"
    args: BtcArguments

    @functools.cached_property
    def codec(self) -> Codec:
        """The codec of the run: the one its arguments name, or else the one in the folder of its model."""
        from stonk_trainer.tasks.btc.dataset import codec_of

        return codec_of(self.args, self.args.codec, self.model)

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
        from stonk_trainer.tasks.btc.rewards import trl_reward

        return [trl_reward(name, self.codec, self.args.horizon, self.args.cost_bps) for name in names]

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

        return [record(self.codec, row, text) for row, text in zip(rows, completions, strict=True)]

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
        from stonk_trainer.tasks.btc.dataset import check_codec_of_model

        check_codec_of_model(self.codec, tokenizer, model)

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
    def demo_tab(cls, models: Sequence[Predictor], max_rows: int) -> tuple[str, Callable[[], None]]:
        """Fan charts of sampled paths."""
        from stonk_trainer.tasks.btc.page import tab

        return tab(models)

    @classmethod
    def recognises(cls, model: Path) -> bool:
        """A GPT has its codec beside it."""
        return (model / "codec").is_dir()

    @classmethod
    def arguments_of_model(cls, model: Path) -> dict[str, Any]:
        """The copy of the codec in the model's folder, wherever the recipe's was."""
        return {"codec": None} if cls.recognises(model) else {}

    # ------------------------------------------------------------------------------------------- model card

    @classmethod
    def card_usage(cls, repo_id: str) -> str:
        """Through `stonk forecast`: no pipeline knows the codec."""
        folder = repo_id.rpartition("/")[2]
        return (
            "With stonk_trainer and a CSV of daily prices (`date,close`):\n\n```bash\n"
            f"hf download {repo_id} --local-dir {folder}\n"
            f"stonk forecast --model {folder} --csv PRICES.csv --horizon 30 --paths 500\n```"
        )

    @classmethod
    def card_dates(cls, recipe: Mapping[str, Any], model: Path) -> str:
        """The boundaries in the codec."""
        path = model / "codec" / "config.json"
        config = json.loads(path.read_text()) if path.is_file() else {}
        if not config.get("train_end"):
            return ""
        return (
            f"Training ends {config['train_end']}, validation {config['validation_end']}; the test is what comes "
            "after. The codec's days end there too."
        )

    @classmethod
    def card_results(cls, folder: Path, model: Path) -> CardResults | None:
        """What `stonk forecast --evaluate true` found (evaluation.json), beside the baselines."""
        from stonk_trainer.evaluation.stats import interval_text
        from stonk_trainer.evaluation.tables import find_model

        path = folder / "evaluation.json"
        found = json.loads(path.read_text()) if path.is_file() else {"models": {}}
        folders = {path: name for name, path in found["models"].items()}
        key = find_model(folders, model)
        if key is None:
            return None

        def text(estimate: dict[str, Any] | None, digits: int) -> str:
            if estimate is None:
                return "–"
            between = interval_text(estimate["ci95"], 1, digits, missing="")
            return f"{estimate['value']:.{digits}f}" + (f" [{between}]" if between else "")

        others, tables, metrics = set(folders.values()) - {folders[key]}, [], []
        header = ["", "CRPS", f"minus {found['judgement']['reference']}", "in the 90% band"]
        for horizon in found["judgement"]["horizons"]:
            data = f"{found['series']}, {horizon['days']} day(s) ahead"
            caption = (
                f"{data}, from {horizon['origins']} days of test. CRPS in % points of log return, lower is better; "
                "share of outcomes in the 90% band."
            )
            scores = {name: score for name, score in horizon["scores"].items() if name not in others}
            rows = [
                [name, text(score["crps"], 3), text(score["difference"], 3), text(score["coverage"]["90"], 2)]
                for name, score in scores.items()
            ]
            tables.append(Table(caption, header, rows))
            metrics.append((data, "crps", scores[folders[key]]["crps"]["value"]))
        return CardResults(tables, metrics)
