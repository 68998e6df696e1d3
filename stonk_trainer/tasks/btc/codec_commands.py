"""`stonk codec train | encode | decode | inspect`: make a codec, use it, and see what it loses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import load_command
from stonk_trainer.tasks.btc import Market
from stonk_trainer.terminal import log, start_log

if TYPE_CHECKING:
    from stonk_trainer.tasks.btc.codec import Codec
    from stonk_trainer.tasks.btc.returns import Series

USAGE = """\
usage: stonk codec {train,encode,decode,inspect} [--config RECIPE] [--key value ...]

  train    learn a codec from daily prices
  encode   prices -> all_tokens.txt, one series per line
  decode   all_tokens.txt -> a CSV of log returns per series
  inspect  what is lost: error beside k-means, codes used, moments before and after, a picture

examples:
  stonk codec train --config btc/codec --csv BTC-USD.csv --train_end 2020-12-31 --validation_end 2021-12-31
  stonk codec encode --codec runs/btc/codec --out data/all_tokens.txt
  stonk codec inspect --codec runs/btc/codec --csv BTC-USD.csv

stonk codec COMMAND --help lists the keys of a command."""


def main(argv: Sequence[str]) -> None:
    commands = {"train": train_main, "encode": encode_main, "decode": decode_main, "inspect": inspect_main}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    if argv[0] not in commands:
        raise UserError(f"stonk codec {argv[0]}: no such command: the commands are {', '.join(commands)}")
    commands[argv[0]](list(argv[1:]))


@dataclass
class Training(Market):
    """Train a codec: a VQ-VAE from daily returns to tokens and back."""

    output_dir: str = field(default="runs/btc/codec", metadata={"help": "Folder of the codec."})
    patch_size: int = field(default=1, metadata={"help": "Days per token."})
    codebook_size: int = field(default=64, metadata={"help": "Codes: log2 of it, divided by patch_size, bits per day."})
    quantizer: Literal["vq", "fsq", "kmeans"] = field(
        default="vq",
        metadata={"help": "vq: a learnt codebook. fsq: a fixed grid. kmeans: the baseline, without a network."},
    )
    hidden_size: int = field(default=48, metadata={"help": "Channels of the convolutions."})
    code_dim: int = field(default=8, metadata={"help": "Dimensions of a code; at least patch_size."})
    num_blocks: int = field(default=3, metadata={"help": "Residual blocks, in the encoder and in the decoder."})
    kernel_size: int = field(default=5, metadata={"help": "Days, then patches, that a convolution sees."})
    steps: int = field(default=1000, metadata={"help": "Optimiser steps."})
    learning_rate: float = field(default=2e-4, metadata={"help": "Highest learning rate."})
    batch_size: int = field(default=16, metadata={"help": "Stretches of up to 256 days per step."})
    seed: int = field(default=42, metadata={"help": "Seed of k-means, weights and batches."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("patch_size", "hidden_size", "code_dim", "num_blocks", "kernel_size", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)} must be at least 1")
        if self.codebook_size < 2:
            raise UserError(f"codebook_size: {self.codebook_size} must be at least 2")
        if self.steps < 0 or self.learning_rate <= 0:
            raise UserError("steps must not be negative, and learning_rate above 0")
        if self.code_dim < self.patch_size or self.hidden_size < self.patch_size:
            raise UserError(
                f"patch_size: {self.patch_size} days do not fit code_dim {self.code_dim} or hidden_size "
                f"{self.hidden_size}: set these at least as large"
            )
        if not (self.train_end and self.validation_end):
            raise UserError("train_end and validation_end are missing: say which days the codec may learn from")


def train_main(argv: list[str]) -> None:
    run = load_command(argv, "codec train", Training, "--config btc/codec --csv BTC-USD.csv")

    from stonk_trainer.tasks.btc.codec import CodecConfig
    from stonk_trainer.tasks.btc.codec_training import train_codec
    from stonk_trainer.tasks.btc.dataset import series_of
    from stonk_trainer.tasks.btc.returns import part, scale_of

    start_log()
    train, validation, left_out = [], [], []
    for series in series_of(run):
        if len(part(series, until=run.train_end).returns) < max(30, run.patch_size):
            left_out.append(series.name)
            continue
        scale = scale_of(series, run.train_end)
        train.append(part(series, until=run.train_end).returns / scale)
        validation.append(part(series, after=run.train_end, until=run.validation_end).returns / scale)
    if left_out:
        log.warning("left out, with fewer than 30 days up to %s: %s", run.train_end, ", ".join(left_out))
    log.info("%d returns of %d series up to %s", sum(map(len, train)), len(train), run.train_end)
    config = CodecConfig(
        patch_size=run.patch_size,
        codebook_size=run.codebook_size,
        quantizer=run.quantizer,
        hidden_size=run.hidden_size,
        code_dim=run.code_dim,
        num_blocks=run.num_blocks,
        kernel_size=run.kernel_size,
        train_end=run.train_end,
        validation_end=run.validation_end,
    )
    if Path(run.output_dir).is_file():  # said before training, not after
        raise UserError(f"output_dir: {run.output_dir} is a file: give a folder")
    codec = train_codec(config, train, validation, run.steps, run.learning_rate, run.batch_size, run.seed)
    codec.save_pretrained(make_folder(run.output_dir, "output_dir"))
    log.info("saved %s", run.output_dir)


@dataclass
class _Use(Market):
    codec: str = field(default="runs/btc/codec", metadata={"help": "The codec: a folder, or a .pt file."})


@dataclass
class Encoding(_Use):
    """Encode prices: one line of tokens per series."""

    out: str = field(default="data/all_tokens.txt", metadata={"help": "File to write."})
    split: Literal["train", "validation", "test", "all"] = field(
        default="train", metadata={"help": "Which days; train is what a GPT may be pretrained on."}
    )
    mirrored: bool = field(default=False, metadata={"help": "Also each series upside down: as many falls as rises."})
    scales: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={"help": "Also calmer and wilder: returns times each of these. More to pretrain on."},
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"scales: {' '.join(map(str, self.scales)) or '(none)'} must be numbers above 0, such as 1")


def _codec_and_series(run: _Use) -> tuple[Codec, list[Series]]:
    from stonk_trainer.tasks.btc.codec import load_codec
    from stonk_trainer.tasks.btc.dataset import series_of, with_dates

    codec = with_dates(load_codec(run.codec), run.codec, run.train_end, run.validation_end)
    return codec, series_of(run)


def encode_main(argv: list[str]) -> None:
    run = load_command(argv, "codec encode", Encoding, "--codec runs/btc/codec --out data/all_tokens.txt")

    from stonk_trainer.tasks.btc.dataset import range_of
    from stonk_trainer.tasks.btc.tokens import tokenise_all, write_tokens

    start_log()
    codec, all_series = _codec_and_series(run)
    signs = (1, -1) if run.mirrored else (1,)
    lines = []
    for tokenised in tokenise_all(all_series, codec, [sign * scale for scale in run.scales for sign in signs]):
        first, end = (0, len(tokenised.tokens)) if run.split == "all" else range_of(tokenised, codec, run.split)
        if end > first:
            lines.append(tokenised.tokens[first:end])
    if not lines:
        raise UserError(f"split: no series has a token in {run.split}: choose another")
    write_tokens(run.out, lines)
    log.info("%d tokens in %d lines (%s): %s", sum(map(len, lines)), len(lines), run.split, run.out)


@dataclass
class Decoding(_Use):
    """Decode a token file into log returns."""

    data: str = field(default="data/all_tokens.txt", metadata={"help": "Tokens, a series per line."})
    out: str = field(
        default="data/decoded.csv", metadata={"help": "CSV to write: series (line of the file), day, log_return."}
    )
    scale: float = field(
        default=1.0,
        metadata={"help": "Standard deviation of the asset's daily log returns; 1: returns in units of their scale."},
    )


def decode_main(argv: list[str]) -> None:
    run = load_command(argv, "codec decode", Decoding, "--codec runs/btc/codec --data data/all_tokens.txt --scale 0.04")
    if run.scale <= 0:
        raise UserError(f"scale: {run.scale} must be above 0")

    import pandas as pd
    import torch

    from stonk_trainer.tasks.btc.codec import load_codec
    from stonk_trainer.tasks.btc.tokens import read_tokens

    start_log()
    codec = load_codec(run.codec)
    decoded = [
        codec.decode(torch.from_numpy(tokens)[None])[0].double().numpy() * run.scale
        for tokens in read_tokens(run.data, codec.config.codebook_size)
    ]
    frame = pd.DataFrame(
        {
            "series": np.repeat(np.arange(1, len(decoded) + 1), [len(d) for d in decoded]),
            "day": np.concatenate([np.arange(1, len(d) + 1) for d in decoded]),
            "log_return": np.concatenate(decoded),
        }
    )
    if Path(run.out).is_dir():
        raise UserError(f"out: {run.out} is a folder: give the name of a file")
    frame.to_csv(make_folder(Path(run.out).parent, "out") / Path(run.out).name, index=False)
    log.info("%d returns of %d series in %s", len(frame), len(decoded), run.out)


@dataclass
class Inspection(_Use):
    """Inspect a codec: what is lost, beside k-means at equal bits per day."""

    dataset_name: str = field(
        default="embedded:BTC",
        metadata={"help": "Daily prices to look at: a CSV file or embedded:BTC.", "aliases": ["--csv"]},
    )
    output_dir: str = field(default="runs/btc/inspect", metadata={"help": "Folder for inspect.json and decoded.png."})
    split: Literal["train", "validation", "test"] = field(default="test", metadata={"help": "Which days."})


def inspect_main(argv: list[str]) -> None:
    run = load_command(argv, "codec inspect", Inspection, "--codec runs/btc/codec --csv BTC-USD.csv")

    from stonk_trainer.tasks.btc import inspection
    from stonk_trainer.tasks.btc.tokens import tokenise

    start_log()
    codec, all_series = _codec_and_series(run)
    if len(all_series) != 1:
        raise UserError(f"tickers: {len(all_series)} series: look at one, with --tickers or embedded:BTC")
    series = tokenise(all_series[0], codec)
    found = inspection.inspect(codec, series, run.split)
    inspection.print_inspection(found)
    folder = make_folder(run.output_dir, "output_dir")
    (folder / "inspect.json").write_text(json.dumps(found, indent=2) + "\n")
    inspection.draw(codec, series, run.split, folder / "decoded.png")
    print(f"saved {folder}/inspect.json and decoded.png")
