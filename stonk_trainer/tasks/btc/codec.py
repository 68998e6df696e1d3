"""The codec: a VQ-VAE that turns a series of daily returns into tokens, `patch_size` days each, and back.

    returns → conv → strided conv (patch) → residual blocks → 1×1 → codebook → mirrored decoder → returns

Every convolution looks back only, so changing a return changes no token of an earlier patch, and a decoded return
depends on no later token. Returns are in units of the series' own scale (`returns.scale_of`), never in fractions.

The network starts as the identity on patches and its codebook as k-means centres: before any training it *is* the
k-means quantiser, which is also kept as the baseline (`quantizer: kmeans`). Training can then only be kept if it is
better on the validation dates.
"""

from __future__ import annotations

import itertools
import math
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stonk_trainer.errors import UserError

if TYPE_CHECKING:
    from vector_quantize_pytorch import FSQ, VectorQuantize

QUANTIZERS = ("vq", "fsq", "kmeans")


class CodecConfig(PreTrainedConfig):
    """Sizes of a codec, the dates that split its data (what trains on its tokens uses the same), and its training.

    train_end, validation_end: ISO dates. kmeans_centres: the baseline, fit on the same patches, (codebook_size,
    patch_size). codes_used, perplexity: over the days it was trained on. None when the checkpoint does not say (a bare
    state dict).
    """

    model_type = "stonk_codec"

    patch_size: int = 1
    codebook_size: int = 64
    quantizer: str = "vq"
    hidden_size: int = 48
    code_dim: int = 8
    num_blocks: int = 3
    kernel_size: int = 5
    train_end: str | None = None
    validation_end: str | None = None
    kmeans_centres: list[list[float]] | None = None
    codes_used: int | None = None
    perplexity: float | None = None

    @property
    def lead_in(self) -> int:
        """Tokens before the first of interest that decoding needs: as far back as the decoder sees."""
        return self.num_blocks * (self.kernel_size - 1) + math.ceil((self.kernel_size - 1) / self.patch_size)

    @property
    def bits_per_day(self) -> float:
        return math.log2(self.codebook_size) / self.patch_size


class CausalConv(nn.Conv1d):
    """A convolution over time that sees the present and the past, with zeros before the start."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        return super().forward(F.pad(x_BCT, (self.kernel_size[0] - 1, 0)))


class ResidualBlock(nn.Module):
    """x + 1×1(relu(conv(relu(x)))); the last convolution starts at zero, the block as the identity."""

    def __init__(self, hidden_size: int, kernel_size: int):
        super().__init__()
        self.conv = CausalConv(hidden_size, hidden_size, kernel_size)
        self.out = nn.Conv1d(hidden_size, hidden_size, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return x_BCT + self.out(F.relu(self.conv(F.relu(x_BCT))))


class Encoder(nn.Module):
    def __init__(self, config: CodecConfig):
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.conv = CausalConv(1, size, config.kernel_size)
        self.patch = nn.Conv1d(size, size, patch, stride=patch)
        self.blocks = nn.Sequential(*(ResidualBlock(size, config.kernel_size) for _ in range(config.num_blocks)))
        self.out = nn.Conv1d(size, config.code_dim, 1)

    def forward(self, returns_BT: Tensor) -> Tensor:
        """(B, T) returns → (B, T / patch_size, code_dim)."""
        return self.out(self.blocks(self.patch(self.conv(returns_BT[:, None])))).transpose(1, 2)


class Decoder(nn.Module):
    def __init__(self, config: CodecConfig):
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.conv = nn.Conv1d(config.code_dim, size, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(size, config.kernel_size) for _ in range(config.num_blocks)))
        self.patch = nn.ConvTranspose1d(size, size, patch, stride=patch)
        self.out = CausalConv(size, 1, config.kernel_size)

    def forward(self, codes_BND: Tensor) -> Tensor:
        """(B, N, code_dim) → (B, N · patch_size) returns."""
        return self.out(self.patch(self.blocks(self.conv(codes_BND.transpose(1, 2)))))[:, 0]


class Codec(PreTrainedModel):
    """Encoder, quantiser and decoder. Tokens are integers in [0, codebook_size)."""

    config_class = CodecConfig
    base_model_prefix = "codec"

    def __init__(self, config: CodecConfig):
        super().__init__(config)
        self.encoder = Encoder(config)
        self.quantizer = _quantizer(config)
        self.decoder = Decoder(config)
        self.post_init()

    def _init_weights(self, module):  # PyTorch's own; `start_as_identity` does the rest
        pass

    @torch.no_grad()
    def encode(self, returns_BT: Tensor) -> Tensor:
        """(B, T) returns in units of their scale, T a multiple of patch_size → (B, T / patch_size) tokens."""
        return self.quantizer(self.eval().encoder(returns_BT))[1].long()

    @torch.no_grad()
    def decode(self, tokens_BN: Tensor) -> Tensor:
        """(B, N) tokens → (B, N · patch_size) returns in units of the series' scale."""
        self.eval()
        if self.config.quantizer == "fsq":
            return self.decoder(self.quantizer.indices_to_codes(tokens_BN))
        return self.decoder(self.quantizer.get_codes_from_indices(tokens_BN))

    def forward(self, returns_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction (B, T), tokens (B, N), commitment loss)."""
        quantized, tokens, *loss = self.quantizer(self.encoder(returns_BT))
        return self.decoder(quantized), tokens, loss[0].sum() if loss else returns_BT.new_zeros(())

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Pass patches through unchanged: the first `patch_size` dimensions of a code are the patch itself."""
        patch = self.config.patch_size
        for module in (self.encoder, self.decoder):
            ends = [block.out for block in module.blocks if isinstance(block, ResidualBlock)]
            for last in ends:
                nn.init.zeros_(last.weight)
            for conv in (*ends, module.conv, module.patch, module.out):
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
        encoder, decoder = self.encoder, self.decoder
        nn.init.zeros_(encoder.conv.weight[:1])
        encoder.conv.weight[0, 0, -1] = 1
        for weight in (encoder.patch.weight[:patch], encoder.out.weight, decoder.conv.weight[:patch]):
            nn.init.zeros_(weight)
        for weight in (decoder.patch.weight[:patch], decoder.patch.weight[:, 0], decoder.out.weight):
            nn.init.zeros_(weight)
        for day in range(patch):
            encoder.patch.weight[day, 0, day] = 1
            encoder.out.weight[day, day, 0] = 1
            decoder.conv.weight[day, day, 0] = 1
            decoder.patch.weight[day, 0, day] = 1
        decoder.out.weight[0, 0, -1] = 1

    @torch.no_grad()
    def set_codebook(self, codes_KD: Tensor, uses_K: Tensor) -> None:
        """Take these codes, with how often a training batch uses each, as the state of the moving averages."""
        book = self.quantizer._codebook
        book.embed.copy_(codes_KD[None])
        book.embed_avg.copy_(codes_KD[None] * uses_K[None, :, None])
        book.cluster_size.copy_(uses_K[None])


def _quantizer(config: CodecConfig) -> FSQ | VectorQuantize:
    from vector_quantize_pytorch import FSQ, VectorQuantize

    if config.quantizer == "fsq":
        return FSQ(levels=fsq_levels(config.codebook_size), dim=config.code_dim)
    return VectorQuantize(
        dim=config.code_dim,
        codebook_size=config.codebook_size,
        decay=0.99,
        commitment_weight=0.25,
        rotation_trick=False,
    )


def fsq_levels(codebook_size: int) -> list[int]:
    """Levels per dimension, few and as even as they come, whose product is the codebook size (Mentzer et al. 2023).

    Raises UserError when there are none: each must be 3 to 16.
    """
    for dimensions in range(1, 6):
        choices = map(list, itertools.combinations_with_replacement(range(16, 2, -1), dimensions))
        found = [levels for levels in choices if math.prod(levels) == codebook_size]
        if found:
            return min(found, key=lambda levels: levels[0] - levels[-1])
    raise UserError(
        f"codebook_size: {codebook_size} is not a product of levels from 3 to 16, as fsq needs: set 64 or 256"
    )


# ------------------------------------------------------------------------------------------------- loading


def load_codec(name: str | Path) -> Codec:
    """A codec's folder, or a bare `.pt` state dict of the same layout, whose sizes are read off its weights.

    A `.pt` file is read as data only; one that would run code is refused. Raises UserError.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _from_state_dict(path)
    if not (path / "config.json").is_file():
        raise UserError(f"codec {name} not found: give the folder of a codec (stonk codec train), or its .pt file")
    try:
        config = CodecConfig.from_pretrained(path)
        if config.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer {config.quantizer} is not one of {', '.join(QUANTIZERS)}")
        # not from_pretrained: it builds on the meta device, where FSQ's own constants have no values
        codec = Codec(config)
        codec.load_state_dict(load_file(path / "model.safetensors"))
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise UserError(f"codec {name} cannot be read: {_first_line(error)}") from error
    return codec.eval()


def _first_line(error: Exception) -> str:
    """The first line of substance: torch lists what is wrong with a state dict under a heading."""
    first, *others = str(error).strip().split("\n")
    return others[0].strip() if others and first.endswith(":") else first


def _from_state_dict(path: Path) -> Codec:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles of a newer protocol, refused all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it is not a state dict of tensors, and reading more could run code"
        ) from error
    except Exception as error:  # a broken file ends torch.load in an error of any kind
        raise UserError(f"{path} cannot be read as a state dict: {_first_line(error)}") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} is not a state dict (names and tensors)")
    weights = _by_place({name: value.detach().float() for name, value in content.items()}, path)
    config = _sizes(weights)
    codec = Codec(config)
    codec.set_codebook(weights.pop("codebook"), torch.ones(config.codebook_size))
    try:
        codec.load_state_dict(weights, strict=False)  # which lack the state of the quantiser alone
    except RuntimeError as error:
        raise UserError(f"{path} is not a VQ-VAE of this codec's layout: {_first_line(error)}") from error
    return codec.eval()


def _by_place(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under this codec's names, recognised by shape and order, whatever the file calls them.

    Convolutions are the tensors with three dimensions that are not a codebook; a bias has the name of its weight.
    """
    is_book = re.compile(r"codebook|embed")
    convolutions = [name for name, value in state.items() if value.ndim == 3 and not is_book.search(name)]
    blocks, odd = divmod(len(convolutions) - 6, 4)
    if blocks < 0 or odd:
        raise UserError(
            f"{path} has {len(convolutions)} convolutions: a VQ-VAE of this layout has 6, and 4 more per residual block"
        )

    inner = [f"blocks.{i}.{name}" for i in range(blocks) for name in ("conv", "out")]
    ours = [f"encoder.{name}" for name in ("conv", "patch", *inner, "out")]
    ours += [f"decoder.{name}" for name in ("conv", *inner, "patch", "out")]
    code_dim = len(state[convolutions[2 + 2 * blocks]])
    weights = {"codebook": _codebook(state, [n for n in state if n not in convolutions], code_dim, path)}
    for target, source in zip(ours, convolutions, strict=True):
        weights[f"{target}.weight"] = state[source]
        bias = source.removesuffix("weight") + "bias"
        out_channels = state[source].shape[1 if target == "decoder.patch" else 0]
        weights[f"{target}.bias"] = state.get(bias, torch.zeros(out_channels))
    return weights


def _codebook(state: dict[str, Tensor], names: list[str], code_dim: int, path: Path) -> Tensor:
    """The (K, code_dim) matrix of codes; some files hold it transposed, or with a leading 1."""
    for name in sorted(names, key=lambda name: ("embed_avg" in name, "codebook" not in name and "embed" not in name)):
        book = state[name][0] if state[name].ndim == 3 else state[name]
        if book.ndim == 2 and code_dim in book.shape and min(book.shape) > 1 and "project" not in name:
            return book if book.shape[1] == code_dim else book.T
    raise UserError(
        f"{path} has no codebook: no matrix of codes with {code_dim} dimensions, as its encoder gives; an fsq codec, "
        "whose levels are not among its weights, is given by its folder"
    )


def _sizes(weights: Mapping[str, Tensor]) -> CodecConfig:
    """Every hyperparameter, from the shapes."""
    codebook_size, code_dim = weights["codebook"].shape
    hidden_size, _, kernel_size = weights["encoder.conv.weight"].shape
    return CodecConfig(
        patch_size=weights["encoder.patch.weight"].shape[2],
        codebook_size=codebook_size,
        hidden_size=hidden_size,
        code_dim=code_dim,
        num_blocks=sum(name.startswith("encoder.blocks") and name.endswith("conv.weight") for name in weights),
        kernel_size=kernel_size,
    )
