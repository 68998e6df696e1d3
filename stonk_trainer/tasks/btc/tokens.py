"""From a series of returns to tokens with dates, to the text file that holds them, and to windows a GPT learns from.

Token id = code number; `<pad> <bos> <eos> <unk>` come after the codes. `all_tokens.txt` holds one series per line,
integers between spaces: ordinary text to every tool that reads text.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder, read_text, write_whole
from stonk_trainer.task import SPLITS
from stonk_trainer.tasks.btc.codec import Codec
from stonk_trainer.tasks.btc.returns import Series, scale_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class TokenSeries:
    """One asset as tokens. The oldest days that fill no patch are left out, so that the last token ends today."""

    name: str
    tokens: np.ndarray  # (n,) int64
    dates: np.ndarray  # (n,) datetime64[D]: the last day of each token
    returns: np.ndarray  # (n, patch_size) float64: the log returns each token stands for
    scale: float  # standard deviation of the training days' returns: decoded returns times this are log returns


def encode(codec: Codec, returns: np.ndarray, scale: float) -> np.ndarray:
    """(n,) tokens of (n · patch_size,) log returns."""
    scaled = torch.from_numpy((returns / scale).astype(np.float32))
    return codec.encode(scaled[None])[0].numpy()


def tokenise(series: Series, codec: Codec, factor: float = 1.0) -> TokenSeries:
    """Encode a whole series, in units of the scale its days up to the codec's `train_end` have, times `factor`.

    Raises UserError when there are too few such days, or fewer days than one patch.
    """
    patch = codec.config.patch_size
    scale = scale_of(series, codec.config.train_end)
    if len(series.returns) < patch:
        raise UserError(f"{series.name} has {len(series.returns)} returns, and one patch has {patch} days")
    left_over = len(series.returns) % patch
    returns = series.returns[left_over:]
    return TokenSeries(
        name=series.name,
        tokens=encode(codec, factor * returns, scale),
        dates=series.dates[left_over + patch - 1 :: patch],
        returns=returns.reshape(-1, patch),
        scale=scale / factor,
    )


def tokenise_all(all_series: Sequence[Series], codec: Codec, factors: Sequence[float] = (1.0,)) -> list[TokenSeries]:
    """Each series at each factor; those too young for a scale are skipped with a warning.

    Raises UserError when none remains.
    """
    found = []
    for series in all_series:
        try:
            found += [tokenise(series, codec, factor) for factor in factors]
        except UserError as error:
            if not found and series is all_series[-1]:
                raise
            log.warning("left out: %s", error)
    return found


def range_of(series: TokenSeries, codec: Codec, split: str) -> tuple[int, int]:
    """(first, end) of the tokens whose last day lies in a split: train, validation or test."""
    ends = np.array([codec.config.train_end, codec.config.validation_end], "datetime64[D]")
    edges = [0, *np.searchsorted(series.dates, ends, side="right").tolist(), len(series.dates)]
    which = SPLITS.index(split)
    return edges[which], edges[which + 1]


class Contexts:
    """The tokens before any day of a series. Patches are cut backwards from each origin, so that its last token ends
    on the day before it, whatever the patch size."""

    def __init__(self, codec: Codec, returns: np.ndarray, scale: float, context_len: int):
        self.patch, self.context_len = codec.config.patch_size, context_len
        # by phase: the tokens of all whole patches that end on a day with index = phase - 1 modulo the patch
        self.by_phase = []
        for phase in range(min(self.patch, len(returns) - self.patch + 1)):
            whole = (len(returns) - phase) // self.patch * self.patch
            self.by_phase.append(encode(codec, returns[phase : phase + whole], scale))

    def before(self, origin: int) -> np.ndarray:
        """(n,) the tokens of returns[:origin], at most `context_len`; none when there are fewer days than a patch."""
        count = origin // self.patch
        if not count:
            return np.empty(0, dtype=np.int64)
        return self.by_phase[origin % self.patch][max(0, count - self.context_len) : count]


def make_tokenizer(codebook_size: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose words are the code numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*map(str, range(codebook_size)), *SPECIALS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def to_text(tokens: Iterable[int]) -> str:
    return " ".join(map(str, tokens))


def from_text(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def output_file(out: str) -> Path:
    """The file `out`, in a folder that is made if it does not exist. Raises UserError where no file can be."""
    path = Path(out)
    if path.is_dir():
        raise UserError(f"out: {out} is a folder: give the name of a file")
    if not os.access(make_folder(path.parent, "out"), os.W_OK):
        raise UserError(f"out: the folder {path.parent} cannot be written to")
    return path


def write_tokens(out: str, lines: Sequence[np.ndarray]) -> None:
    """One series per line. Raises UserError where no file can be written."""
    write_whole(output_file(out), "".join(to_text(tokens) + "\n" for tokens in lines))


def read_tokens(path: str | Path, codebook_size: int) -> list[np.ndarray]:
    """The series of a token file. Raises UserError naming the line of a word that is not a token of this codec."""
    series = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        for word in line.split():
            if not re.fullmatch(r"-?[0-9]{1,18}", word):
                raise UserError(f"data: {path}, line {number}: {word!r} is not a token; tokens are integers")
            if not 0 <= int(word) < codebook_size:
                raise UserError(
                    f"data: {path}, line {number}: token {word} is outside 0..{codebook_size - 1}, the codes of this "
                    "codec: give the codec that wrote the file, or encode the series again"
                )
        if line.strip():
            series.append(np.array(from_text(line)))
    if not series:
        raise UserError(f"data: {path} has no tokens")
    return series


def training_windows(series: Sequence[np.ndarray], length: int, step: int) -> list[dict]:
    """Rows for SFTTrainer: `input_ids` of `length` tokens, a window every `step` of each series, its last tokens too.

    Raises UserError when no series is that long.
    """
    rows = []
    for tokens in series:
        starts = list(range(0, len(tokens) - length + 1, step))
        if starts and starts[-1] + length < len(tokens):
            starts.append(len(tokens) - length)
        rows += [{"input_ids": tokens[start : start + length].tolist()} for start in starts]
    if not rows:
        longest = max(map(len, series), default=0)
        raise UserError(
            f"0 training windows of context_len {length} tokens: the longest of {len(series)} series has {longest} "
            f"before train_end; set --context-len to at most {longest}, or give more days"
        )
    return rows


def scoring_windows(series: Sequence[tuple[np.ndarray, int, int]], length: int) -> list[dict]:
    """Rows in which each token of [first, end) is predicted once, from at least half a window where there is one.

    series: (tokens, first, end). Rows have `input_ids` and `labels`, -100 on what is only context. Raises UserError
    when there is no such token.
    """
    rows = []
    for tokens, first, end in series:
        first = max(first, 1)  # the first token of a series follows nothing
        for start in range(first, end, max(1, length // 2)):
            stop = min(start + max(1, length // 2), end)
            begin = max(0, stop - length)
            labels = np.where(np.arange(begin, stop) >= start, tokens[begin:stop], -100)
            rows.append({"input_ids": tokens[begin:stop].tolist(), "labels": labels.tolist()})
    if not rows:
        raise UserError("no tokens to validate on: no series has days between train_end and validation_end")
    return rows


def contexts(first: int, end: int, context_len: int, horizon: int, step: int) -> range:
    """Origins o: tokens [o - context_len, o) are the context, [o, o + horizon) the future, which lies in [first, end)
    whole; `step` tokens apart."""
    return range(max(first, context_len), end - horizon + 1, step)
