"""`stonk codec train | encode | decode | inspect`: make a codec, use it, and see what it loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stonk_trainer.errors import UserError
from stonk_trainer.files import make_folder, whole, write_json
from stonk_trainer.options import option
from stonk_trainer.recipe import check_ranges, load_command
from stonk_trainer.tasks.btc.arguments import Market
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

    output_dir: str = option("runs/btc/codec", "Folder of the codec.")
    patch_size: int = option(1, "Days per token.")
    codebook_size: int = option(64, "Codes: log2 of it, divided by patch_size, bits per day.")
    quantizer: Literal["vq", "fsq", "kmeans"] = option(
        "vq", "vq: a learnt codebook. fsq: a fixed grid. kmeans: the baseline, without a network."
    )
    hidden_size: int = option(48, "Channels of the convolutions.")
    code_dim: int = option(8, "Dimensions of a code; at least patch_size.")
    num_blocks: int = option(3, "Residual blocks, in the encoder and in the decoder.")
    kernel_size: int = option(5, "Days, then patches, that a convolution sees.")
    steps: int = option(1000, "Optimiser steps.")
    learning_rate: float = option(2e-4, "Highest learning rate.")
    batch_size: int = option(16, "Stretches of up to 256 days per step.")
    seed: int = option(42, "Seed of k-means, weights and batches.")

    def __post_init__(self):
        super().__post_init__()
        sizes = "patch_size hidden_size code_dim num_blocks kernel_size batch_size"
        check_ranges(
            self,
            {"[1, inf)": sizes, "[2, inf)": "codebook_size", "[0, inf)": "steps seed", "(0, inf)": "learning_rate"},
        )
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
    from stonk_trainer.tasks.btc.returns import returns_between, scale_of

    start_log()
    train, validation, left_out = [], [], []
    for series in series_of(run):
        known = returns_between(series, until=run.train_end)
        if len(known) < max(30, run.patch_size):
            left_out.append(series.name)
            continue
        scale = scale_of(series, run.train_end)
        train.append(known / scale)
        validation.append(returns_between(series, after=run.train_end, until=run.validation_end) / scale)
    if left_out:
        log.warning("left out, with fewer than 30 days up to %s: %s", run.train_end, ", ".join(left_out))
    log.info("%d returns of %d series up to %s", sum(map(len, train)), len(train), run.train_end)
    sizes = {key.name: getattr(run, key.name) for key in fields(CodecConfig) if hasattr(run, key.name)}
    config = CodecConfig(**sizes)
    if Path(run.output_dir).is_file():  # reported before training, not after
        raise UserError(f"output_dir: {run.output_dir} is a file: give a folder")
    codec = train_codec(config, train, validation, run.steps, run.learning_rate, run.batch_size, run.seed)
    codec.save_pretrained(make_folder(run.output_dir, "output_dir"))
    log.info("saved %s", run.output_dir)


@dataclass
class _Use(Market):
    codec: str = option("runs/btc/codec", "The codec: a folder, or a .pt file.")


@dataclass
class Encoding(_Use):
    """Encode prices: one line of tokens per series."""

    out: str = option("data/all_tokens.txt", "File to write.")
    split: Literal["train", "validation", "test", "all"] = option(
        "train", "Which days; train is what a GPT may be pretrained on."
    )
    mirrored: bool = option(False, "Also each series upside down: as many falls as rises.")
    scales: list[float] = option([1.0], "Also calmer and wilder: returns times each of these. More to pretrain on.")

    def __post_init__(self):
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"scales: {' '.join(map(str, self.scales)) or '(none)'} must be numbers above 0, such as 1")


def _codec_and_series(run: _Use) -> tuple[Codec, list[Series]]:
    from stonk_trainer.tasks.btc.dataset import codec_of, series_of

    return codec_of(run, run.codec, None), series_of(run)


def encode_main(argv: list[str]) -> None:
    run = load_command(argv, "codec encode", Encoding, "--codec runs/btc/codec --out data/all_tokens.txt")

    from stonk_trainer.tasks.btc.tokens import range_of, tokenise_all, write_tokens

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

    data: str = option("data/all_tokens.txt", "Tokens, a series per line.")
    out: str = option("data/decoded.csv", "CSV to write: series (line of the file), day, log_return.")
    scale: float = option(
        1.0, "Standard deviation of the asset's daily log returns; 1: returns in units of their scale."
    )


def decode_main(argv: list[str]) -> None:
    run = load_command(argv, "codec decode", Decoding, "--codec runs/btc/codec --data data/all_tokens.txt --scale 0.04")
    if run.scale <= 0:
        raise UserError(f"scale: {run.scale} must be above 0")

    import pandas as pd
    import torch

    from stonk_trainer.tasks.btc.codec import load_codec
    from stonk_trainer.tasks.btc.tokens import output_file, read_tokens

    start_log()
    codec = load_codec(run.codec)
    frames = []
    for number, tokens in enumerate(read_tokens(run.data, codec.config.codebook_size), start=1):
        decoded = codec.decode(torch.from_numpy(tokens)[None])[0].double().numpy() * run.scale
        days = range(1, len(decoded) + 1)
        frames.append(pd.DataFrame({"series": number, "day": days, "log_return": decoded}))
    frame = pd.concat(frames)
    with whole(output_file(run.out)) as file:
        frame.to_csv(file, index=False)
    log.info("%d returns of %d series in %s", len(frame), len(frames), run.out)


@dataclass
class Inspection(_Use):
    """Inspect a codec: what is lost, beside k-means at equal bits per day."""

    dataset_name: str = option("embedded:BTC", "Daily prices to look at: a CSV file or embedded:BTC.", "--csv")
    output_dir: str = option("runs/btc/inspect", "Folder for inspect.json and decoded.png.")
    split: Literal["train", "validation", "test"] = option("test", "Which days.")


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
    write_json(folder / "inspect.json", found)
    inspection.draw(codec, series, run.split, folder / "decoded.png")
    print(f"saved {folder}/inspect.json and decoded.png")
