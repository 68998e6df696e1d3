"""Rows for the trainers, from prices through the codec to tokens. Every split is by date, the codec's."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.task import DataSummary, Row
from stonk_trainer.tasks.btc.arguments import BtcArguments, Market, check_days
from stonk_trainer.tasks.btc.codec import Codec, load_codec
from stonk_trainer.tasks.btc.returns import EMBEDDED, Series, load_series, scale_before
from stonk_trainer.tasks.btc.rewards import decode_futures
from stonk_trainer.tasks.btc.tokens import (
    SPECIALS,
    Contexts,
    TokenSeries,
    contexts,
    from_text,
    range_of,
    read_tokens,
    scoring_windows,
    to_text,
    tokenise_all,
    training_windows,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

HELD_OUT = 0.1  # of each series of a token file, which has no dates


def series_of(market: Market) -> list[Series]:
    """The series a recipe names; `embedded:BTC` is one of `embedded:markets`."""
    name = market.dataset_name
    if name.startswith("embedded:") and name != EMBEDDED:
        return load_series(EMBEDDED, [name.removeprefix("embedded:").upper()])
    return load_series(name, market.tickers)


# ---------------------------------------------------------------------------------------------------- the codec


def codec_of(market: Market, named: str | None, model: str | None) -> Codec:
    """The codec that is named, or the one in the model's folder, with the dates that split the data.

    The dates are the codec's own, or those of `market` where it has none.

    Raises:
        UserError: there is no codec; there are no dates; or `market` has others than the codec: what trains later must
            not see days that an earlier stage held out, nor the other way round.
    """
    name = named or str(Path(model or "") / "codec")
    if named is None and not (Path(name) / "config.json").is_file():
        raise UserError(
            f"codec: {model or 'the model'} has none: give the folder or .pt file of a codec with --codec; a language "
            "model forecasts with stonk predict"
        )
    codec = load_codec(name)
    for key in ("train_end", "validation_end"):
        own, wanted = getattr(codec.config, key), getattr(market, key)
        if own and wanted and own != wanted:
            raise UserError(
                f"{key}: {wanted} is not the {own} that codec {name} was trained with; every stage uses the codec's "
                f"dates: leave {key} out, or train a codec for the other date"
            )
        if not (own or wanted):
            raise UserError(f"{key}: codec {name} does not say which days it has seen: give --{key} YYYY-MM-DD")
        setattr(codec.config, key, own or wanted)
    check_days(codec.config.train_end, codec.config.validation_end)
    return codec


def check_codec_of_model(codec: Codec, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raise UserError unless a model's vocabulary and the codec in its folder are this codec's.

    With another codec its tokens would mean other returns; with other dates it would be judged on days that it was
    trained on.
    """
    codes = len(tokenizer) - len(SPECIALS)
    if codes != codec.config.codebook_size:
        raise UserError(
            f"model {model} knows {codes} market tokens and the codec has {codec.config.codebook_size} codes: give the "
            "codec the model was trained with (a copy lies in its folder), or train a model on this codec's tokens"
        )
    inside = Path(model) / "codec"
    if not (inside / "config.json").is_file():
        return
    before = load_codec(inside)
    for key in ("train_end", "validation_end"):
        theirs, ours = getattr(before.config, key), getattr(codec.config, key)
        if theirs != ours:
            raise UserError(
                f"codec: its {key} is {ours}, and model {model} was trained with {theirs}: leave --codec out, or train "
                "a model on this codec's tokens"
            )
    weights, own = before.state_dict(), codec.state_dict()
    if weights.keys() != own.keys() or not all(torch.equal(weights[name], own[name]) for name in own):
        raise UserError(
            f"codec: model {model} was trained on the tokens of another codec, the one in its folder: leave --codec "
            "out, or train a model on this codec's tokens"
        )


# ---------------------------------------------------------------------------------------------------- training


def sft_rows(args: BtcArguments, codec: Codec, split: str) -> Dataset:
    """Windows of `context_len` tokens: of the token file `data`, or of the prices' days in `split`."""
    from datasets import Dataset

    if args.context_len < 2:
        raise UserError(f"context_len: a window of {args.context_len} token has none to predict: give at least 2")
    if args.data:
        ranges = []
        for tokens in read_tokens(args.data, codec.config.codebook_size):
            cut = len(tokens) - int(HELD_OUT * len(tokens))
            ranges.append((tokens, 0, cut) if split == "train" else (tokens, cut, len(tokens)))
    else:
        all_series = tokenise_all(series_of(args), codec)
        ranges = [(series.tokens, *range_of(series, codec, split)) for series in all_series]
    if split == "train":
        step = args.context_step or max(1, args.context_len // 2)
        rows = training_windows([tokens[first:end] for tokens, first, end in ranges], args.context_len, step)
    else:
        rows = scoring_windows(ranges, args.context_len)
    return Dataset.from_list(rows)


def rl_rows(args: BtcArguments, codec: Codec, split: str) -> tuple[Dataset, DataSummary]:
    """Contexts of `context_len` tokens with the `horizon` tokens after them, which lie whole in `split`."""
    from datasets import Dataset

    rows, longest = [], 0
    for series in tokenise_all(series_of(args), codec):
        first, end = range_of(series, codec, split)
        longest = max(longest, end - first)
        for origin in contexts(first, end, args.context_len, args.horizon, args.context_step or 1):
            rows.append(_rl_row(series, origin, args.context_len, args.horizon))
    if not rows:
        raise UserError(
            f"0 {split} contexts: a context of {args.context_len} tokens and a future of {args.horizon} fit in no "
            f"series ({split} has {longest} tokens at most): set a shorter --context-len or --horizon, or give more "
            "days"
        )
    in_split = len(rows)
    wanted = args.max_train_samples if split == "train" else args.max_eval_samples
    if wanted is not None and wanted < len(rows):
        chosen = np.random.default_rng(args.sampling_seed).choice(len(rows), wanted, replace=False)
        rows = [rows[i] for i in sorted(chosen)]
    days = sorted(row["date"] for row in rows)
    summary = DataSummary(in_split, len(rows), first=days[0], last=days[-1])
    log.info("%s contexts: %s", split, summary)
    return Dataset.from_list(rows), summary


def _rl_row(series: TokenSeries, origin: int, context_len: int, horizon: int) -> Row:
    future = series.returns[origin : origin + horizon].ravel()
    total = float(future.sum())
    return {
        "prompt": to_text(series.tokens[origin - context_len : origin]),
        "future_tokens": series.tokens[origin : origin + horizon].tolist(),
        "future_returns": future.tolist(),
        "scale": series.scale,
        "ticker": series.name,
        "date": str(series.dates[origin - 1]),
        "label": "UP" if total > 0 else "DOWN",
        "next_return": float(np.expm1(total)),
    }


def record(codec: Codec, row: Row, completion: str) -> Row:
    """The row, and what the sampled path comes to: direction, and move as a fraction. One sample has no confidence."""
    context, sample = from_text(row["prompt"]), from_text(completion)
    days = decode_futures(codec, np.array([context]), np.array([sample]), np.array([row["scale"]]))
    move = float(np.expm1(days.sum()))
    known = {name: row[name] for name in ("ticker", "date", "label", "next_return")}
    return {**known, "direction": "UP" if move > 0 else "DOWN", "confidence": None, "move": abs(move)}


# ---------------------------------------------------------------------------------------------------- forecasts


def rows_to_forecast(
    args: BtcArguments, codec: Codec, first: str | None, last: str | None, horizon: int = 1
) -> list[Row]:
    """Rows of the days from `first` to `last` (ISO days, None: no bound); each series' last day when both are None.

    prompt (the tokens up to that day's close, at most `context_len`), scale, ticker, date, base_rate_up (share of the
    spans of `horizon` days up to that day that rose; 0.5 before any), and `outcome` of the next `horizon` days. Raises
    UserError when there is no such day.
    """
    rows = []
    for series in series_of(args):
        low = np.searchsorted(series.dates, np.datetime64(first)) if first else 0
        high = np.searchsorted(series.dates, np.datetime64(last), side="right") if last else len(series.dates)
        if first is None and last is None:
            low = len(series.dates) - 1
        scale = scale_before(series, codec.config.train_end, max(int(low) - 1, 0))
        tokens_of = Contexts(codec, series.returns, scale, args.context_len)
        if low < high:
            warn_if_seen(series, series.dates[low], codec)
        level = np.concatenate([[0.0], np.cumsum(series.returns)])
        ups = np.cumsum(level[horizon:] > level[:-horizon])  # spans of `horizon` days that end by a day and rose
        for day in range(low, high):
            tokens = tokens_of.before(day + 1)
            if not len(tokens):
                continue  # the first days make up no patch
            rows.append(
                {
                    "prompt": to_text(tokens),
                    "scale": scale,
                    "ticker": series.name,
                    "date": str(series.dates[day]),
                    "base_rate_up": float(ups[day + 1 - horizon] / (day + 2 - horizon)) if day + 1 >= horizon else 0.5,
                    **outcome(series.returns[day + 1 :], horizon),
                }
            )
    if not rows:
        raise UserError(
            f"no day to forecast from {first or 'the first'} to {last or 'the last'} in {args.dataset_name}"
        )
    return rows


def outcome(future: np.ndarray | list[float], horizon: int) -> Row:
    """label and next_return of the first `horizon` daily log returns; None where fewer are known or nothing moved."""
    total = float(np.sum(future[:horizon]))
    if len(future) < horizon or total == 0:
        return {"label": None, "next_return": None}
    return {"label": "UP" if total > 0 else "DOWN", "next_return": float(np.expm1(total))}


def warn_if_seen(series: Series, last: np.datetime64, codec: Codec) -> None:
    """Warn when the outcome of a forecast that knows the days up to `last` was in the training data."""
    known = codec.config.train_end
    if str(last) < known:
        log.warning("%s: the model was trained on days up to %s: what it says of them is memory", series.name, known)


def check_row(codec: Codec, row: Row, where: str) -> Row:
    """`row`. Raises UserError unless its prompt is text of this codec's tokens, and its scale a number above 0."""
    size, prompt = codec.config.codebook_size, row.get("prompt")
    words = prompt.split() if isinstance(prompt, str) else []
    if not words or not all(word.isascii() and word.isdigit() and int(word) < size for word in words):
        raise UserError(f"{where}: prompt is not market tokens: numbers below {size} with spaces between")
    scale = row.get("scale")
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise UserError(f"{where}: scale: {scale!r} is not a number above 0 (the deviation of daily returns)")
    return row
