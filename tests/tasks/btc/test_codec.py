import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stonk_trainer.errors import UserError
from stonk_trainer.tasks.btc.codec import CodecConfig, fsq_levels, load_codec
from stonk_trainer.tasks.btc.codec_training import (
    all_patches,
    coding_error,
    kmeans_centres,
    patch_error,
    train_codec,
    training_examples,
    usage,
)

SIZES = {"hidden_size": 8, "code_dim": 4, "num_blocks": 1, "kernel_size": 3}
QUICK = {"learning_rate": 2e-3, "batch_size": 8, "seed": 0}


@pytest.fixture(scope="module")
def data(heavy_tailed):
    """(train, validation): three series each, in units of their scale."""
    series = [heavy_tailed(900, seed) for seed in range(3)]
    series = [returns / returns[:700].std() for returns in series]
    return [returns[:700] for returns in series], [returns[700:] for returns in series]


@pytest.fixture(scope="module")
def kmeans(data):
    """The k-means codec of the data, by patch size: made once."""
    made = {}

    def make(patch_size=1, codebook_size=16):
        if (patch_size, codebook_size) not in made:
            config = CodecConfig(patch_size=patch_size, codebook_size=codebook_size, quantizer="kmeans", **SIZES)
            made[patch_size, codebook_size] = train_codec(config, *data, steps=0, **QUICK)
        return made[patch_size, codebook_size]

    return make


@pytest.fixture
def codec_of(random_codec, kmeans):
    """A codec that can be told by nothing but its quantiser and patch."""
    return lambda quantizer, patch: kmeans(patch) if quantizer == "kmeans" else random_codec(quantizer, patch)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EVERY = pytest.mark.parametrize(("quantizer", "patch"), [(q, p) for q in ("vq", "fsq", "kmeans") for p in (1, 4)])

# ------------------------------------------------------------------------------------------------- causality


@EVERY
def test_changing_returns_from_a_day_on_changes_no_token_of_an_earlier_patch(codec_of, quantizer, patch):
    codec, returns = codec_of(quantizer, patch), noise(1, 160)
    tokens = codec.encode(returns)
    assert len(tokens.unique()) > 4
    for day in range(0, 160, 3):
        for factor in (-1, 1e6):
            other = returns.clone()
            other[:, day:] *= factor
            changed = codec.encode(other)
            assert torch.equal(changed[:, : day // patch], tokens[:, : day // patch])
            if day < 120:
                assert not torch.equal(changed, tokens)


@EVERY
def test_changing_a_token_changes_no_return_decoded_before_it(codec_of, quantizer, patch):
    codec, tokens = codec_of(quantizer, patch), codec_of(quantizer, patch).encode(noise(1, 40 * patch))
    returns = codec.decode(tokens)
    assert returns.shape == (1, 40 * patch)
    for place in range(40):
        other = tokens.clone()
        other[:, place:] = (other[:, place:] + 3) % codec.config.codebook_size
        changed = codec.decode(other)
        assert torch.equal(changed[:, : place * patch], returns[:, : place * patch])
        assert not torch.equal(changed[:, place * patch :], returns[:, place * patch :])


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_decoding_needs_the_lead_in_and_nothing_before_it(random_codec, patch):
    codec = random_codec("vq", patch)
    tokens, lead = codec.encode(noise(1, 60 * patch)), codec.config.lead_in
    last_patch = codec.decode(tokens)[:, -patch:]
    assert torch.allclose(codec.decode(tokens[:, -lead - 1 :])[:, -patch:], last_patch, atol=1e-5)
    assert not torch.allclose(codec.decode(tokens[:, -lead:])[:, -patch:], last_patch, atol=1e-3)


def test_each_series_of_a_batch_is_coded_as_it_is_alone(random_codec):
    codec, returns = random_codec("vq", 4), noise(5, 80)
    tokens = codec.encode(returns)
    assert tokens.dtype == torch.int64 and tokens.shape == (5, 20)
    assert all(torch.equal(codec.encode(returns[i : i + 1])[0], tokens[i]) for i in range(5))


# ------------------------------------------------------------------------------------------------- k-means, training


@pytest.mark.parametrize("patch", [1, 4])
def test_an_untrained_vq_codec_is_exactly_the_kmeans_quantiser(data, patch):
    config = CodecConfig(patch_size=patch, codebook_size=16, quantizer="vq", **SIZES)
    codec = train_codec(config, *data, steps=0, **QUICK)
    centres = kmeans_centres(all_patches(data[0], patch), 16, seed=0)
    assert np.allclose(codec.config.kmeans_centres, centres)
    patches = data[1][0].astype(np.float32).reshape(-1, patch)
    nearest = ((patches[:, None].astype(float) - centres) ** 2).sum(2).argmin(1)
    tokens = codec.encode(torch.from_numpy(patches.reshape(1, -1)))
    assert tokens[0].tolist() == nearest.tolist()
    assert np.allclose(codec.decode(tokens)[0].reshape(-1, patch), centres[nearest], atol=1e-6)
    assert patch_error(patches, centres) == pytest.approx(((patches - centres[nearest]) ** 2).mean(), rel=1e-4)


def test_the_coding_error_is_over_every_phase_and_both_signs(kmeans):
    """An oracle by hand, patch by patch."""
    codec, returns = kmeans(4), noise(23).numpy().astype(float)
    centres = np.array(codec.config.kmeans_centres)
    wrong = total = 0.0
    for start in range(len(returns) - 3):
        for patch in (returns[start : start + 4], -returns[start : start + 4]):
            wrong += ((centres - patch) ** 2).sum(1).min()
            total += (patch**2).sum()
    assert coding_error(codec, [returns]) == pytest.approx(wrong / total, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("patch", [1, 4])
def test_a_trained_codec_is_never_worse_than_kmeans_and_uses_its_codes(data, kmeans, patch):
    config = CodecConfig(patch_size=patch, codebook_size=16, **SIZES)
    codec = train_codec(config, *data, steps=40, **QUICK)
    assert 0 < coding_error(codec, data[1]) <= coding_error(kmeans(patch), data[1]) < 1
    tokens = torch.cat([codec.encode(torch.from_numpy(s.astype(np.float32))[None]) for s in data[0]], dim=1)[0]
    counts = torch.bincount(tokens, minlength=16)
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(torch.exp(-(shares * shares.log()).sum()))
    assert (counts > 0).sum() >= 0.9 * 16 and perplexity >= 0.4 * 16
    assert codec.config.codes_used == (counts > 0).sum() and codec.config.perplexity == pytest.approx(perplexity)


def test_training_that_ruins_the_codec_leaves_kmeans(data, kmeans):
    config = CodecConfig(codebook_size=16, **SIZES)
    codec = train_codec(config, *data, steps=12, learning_rate=100.0, batch_size=4, seed=0)
    assert coding_error(codec, data[1]) == coding_error(kmeans(), data[1])


@pytest.mark.slow
def test_training_beats_kmeans_where_days_tell_of_each_other():
    """Planted: returns that change slowly, 4 codes. What came before says where between two centres the day lies."""
    rng, series = np.random.default_rng(0), []
    for _ in range(6):
        steps, level = rng.normal(0, 0.2, 400), np.zeros(400)
        for day in range(1, 400):
            level[day] = 0.98 * level[day - 1] + steps[day]
        series.append(level)
    train, validation = series[:4], series[4:]
    config = CodecConfig(codebook_size=4, hidden_size=16, code_dim=4, num_blocks=1, kernel_size=5)
    learnt = train_codec(config, train, validation, steps=150, learning_rate=4e-3, batch_size=8, seed=0)
    baseline = train_codec(config, train, validation, steps=0, **QUICK)
    assert coding_error(learnt, validation) < 0.95 * coding_error(baseline, validation)


def test_fsq_gets_better_by_training(data):
    config = CodecConfig(codebook_size=16, quantizer="fsq", **SIZES)
    torch.manual_seed(0)
    start = train_codec(config, *data, steps=0, **QUICK)
    codec = train_codec(config, *data, steps=24, **QUICK)
    assert coding_error(codec, data[1]) < coding_error(start, data[1])


def test_the_same_seed_trains_the_same_codec(data):
    config = CodecConfig(codebook_size=16, **SIZES)
    one, two = (train_codec(config, *data, steps=6, **QUICK).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_centres_are_of_training_days_only(data):
    config = CodecConfig(codebook_size=16, **SIZES)
    one = train_codec(config, data[0], data[1], steps=0, **QUICK).state_dict()
    two = train_codec(config, data[0], [100 * s for s in data[1]], steps=0, **QUICK).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_training_without_a_validation_patch_is_refused(data, quantizer):
    config = CodecConfig(patch_size=4, codebook_size=16, quantizer=quantizer, **SIZES)
    with pytest.raises(UserError, match="validation_end"):
        train_codec(config, data[0], [s[:3] for s in data[1]], steps=3, **QUICK)


def test_less_data_than_two_patches_per_code_is_refused(data):
    with pytest.raises(UserError, match="codebook_size: 16 codes need at least 32 patches of 4 days .* there are 31"):
        train_codec(CodecConfig(patch_size=4, codebook_size=16, **SIZES), [data[0][0][:34]], data[1], steps=0, **QUICK)
    with pytest.raises(UserError, match="there are 0"):
        train_codec(CodecConfig(codebook_size=16, **SIZES), [], [], steps=0, **QUICK)


def test_training_examples_start_at_every_phase_of_a_patch():
    days = np.arange(3000.0)
    examples = training_examples([days], 4)
    assert examples.shape[1] == 256 and set(examples[:, 0].int().remainder(4).tolist()) == {0, 1, 2, 3}
    assert (examples[:, 1:] - examples[:, :-1] == 1).all()
    assert training_examples([days[:30], days[:21]], 4).shape == (1, 28)  # no shorter than the longest series has
    assert training_examples([days[:5]], 1).tolist()[0] == [0, 1, 2, 3, 4]


def test_perplexity_is_of_the_shares_of_codes():
    assert usage(np.array([0, 0, 1, 1, 3, 3, 7, 7]), 8) == (4, 2.0)
    assert usage(np.array([5, 5]), 8) == (1, 0.0)


# ------------------------------------------------------------------------------------------------- fsq


def test_fsq_levels_multiply_to_the_codebook_size():
    for size in (3, 16, 64, 81, 125, 256, 512, 1000, 4096):
        levels = fsq_levels(size)
        assert np.prod(levels) == size and all(3 <= n <= 16 for n in levels), (size, levels)
    assert fsq_levels(64) == [8, 8] and fsq_levels(1000) == [10, 10, 10]


@pytest.mark.parametrize("size", [1, 2, 17, 34, 19 * 16, 10**9])
def test_a_codebook_size_that_is_no_product_of_levels_is_refused(size):
    with pytest.raises(UserError, match=f"codebook_size: {size} "):
        fsq_levels(size)


# ------------------------------------------------------------------------------------------------- files


@EVERY
def test_a_saved_codec_comes_back_whole(codec_of, tmp_path, quantizer, patch):
    codec, returns = codec_of(quantizer, patch), noise(2, 80)
    codec.save_pretrained(tmp_path / "codec")
    loaded = load_codec(str(tmp_path / "codec"))
    tokens = codec.encode(returns)
    assert torch.equal(loaded.encode(returns), tokens) and torch.equal(loaded.decode(tokens), codec.decode(tokens))
    for key in ("train_end", "validation_end", "kmeans_centres", "codes_used", "perplexity", "quantizer", "patch_size"):
        assert getattr(loaded.config, key) == getattr(codec.config, key)
    assert not loaded.training


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("patch", [1, 4])
def test_every_size_is_read_off_a_bare_state_dict(random_codec, tmp_path, patch, nested):
    codec, returns = random_codec("vq", patch), noise(1, 80)
    state = codec.state_dict()
    torch.save({"epoch": 3, nested: state} if nested else state, tmp_path / "codec.pt")
    loaded = load_codec(tmp_path / "codec.pt")
    sizes = ("patch_size", "codebook_size", "hidden_size", "code_dim", "num_blocks", "kernel_size", "quantizer")
    assert {key: getattr(loaded.config, key) for key in sizes} == {key: getattr(codec.config, key) for key in sizes}
    tokens = codec.encode(returns)
    assert torch.equal(loaded.encode(returns), tokens) and torch.equal(loaded.decode(tokens), codec.decode(tokens))
    assert loaded.config.train_end is None  # a state dict does not say


class ForeignBlock(nn.Module):
    def __init__(self, size, kernel, bias):
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv1d(size, size, kernel, bias=bias), nn.ReLU(), nn.Conv1d(size, size, 1, bias=bias)
        )

    def forward(self, x):
        conv = self.net[1]
        x_before = F.pad(self.net[0](x), (conv.kernel_size[0] - 1, 0))
        return x + self.net[3](self.net[2](conv(x_before)))


class ForeignVQVAE(nn.Module):
    """The classical layout under other names, written without a line of ours; 3 days per token, 10 codes."""

    def __init__(self, codes=10, dim=6, size=12, kernel=4, patch=3, blocks=2, bias=True):
        super().__init__()
        self.kernel, self.blocks = kernel, blocks

        def residual():
            return [ForeignBlock(size, kernel, bias) for _ in range(blocks)]

        self.enc = nn.Sequential(
            nn.Conv1d(1, size, kernel, bias=bias), nn.Conv1d(size, size, patch, stride=patch, bias=bias), *residual(),
            nn.Conv1d(size, dim, 1, bias=bias),
        )  # fmt: skip
        self.vq = nn.Embedding(codes, dim)
        self.dec = nn.Sequential(
            nn.Conv1d(dim, size, 1, bias=bias), *residual(),
            nn.ConvTranspose1d(size, size, patch, stride=patch, bias=bias), nn.Conv1d(size, 1, kernel, bias=bias),
        )  # fmt: skip

    @torch.no_grad()
    def encode(self, returns):
        x = self.enc[1:](self.enc[0](F.pad(returns[:, None], (self.kernel - 1, 0)))).transpose(1, 2)
        return ((x[:, :, None] - self.vq.weight) ** 2).sum(-1).argmin(-1)

    @torch.no_grad()
    def decode(self, tokens):
        x = self.dec[:-1](self.vq(tokens).transpose(1, 2))
        return self.dec[-1](F.pad(x, (self.kernel - 1, 0)))[:, 0]


def foreign(bias=True, **sizes):
    torch.manual_seed(0)
    model = ForeignVQVAE(bias=bias, **sizes)
    with torch.no_grad():
        model.vq.weight.copy_(model.enc[1:](model.enc[0](noise(len(model.vq.weight), 1, 61)))[:, :, -1])
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("codebook", ["as it is", "transposed", "with a leading 1", "under the name codebook"])
def test_a_foreign_vqvae_of_this_layout_is_loaded_whatever_its_names(tmp_path, codebook, bias):
    model, returns = foreign(bias), noise(3, 120, seed=1)
    state = dict(model.state_dict())
    book = state.pop("vq.weight")
    state |= {
        "as it is": {"vq.weight": book},
        "transposed": {"vq.weight": book.T.contiguous()},
        "with a leading 1": {"quantize.embed": book[None], "quantize.embed_avg": 7 * book[None]},
        "under the name codebook": {"a.matrix": torch.zeros(50, 6), "codebook": book},
    }[codebook]
    torch.save(state, tmp_path / "foreign.pt")
    codec = load_codec(tmp_path / "foreign.pt")
    config = codec.config
    assert (config.codebook_size, config.code_dim, config.hidden_size) == (10, 6, 12)
    assert (config.patch_size, config.num_blocks, config.kernel_size) == (3, 2, 4)
    tokens = model.encode(returns)
    assert len(tokens.unique()) > 4
    assert torch.equal(codec.encode(returns), tokens)
    assert torch.allclose(codec.decode(tokens), model.decode(tokens), atol=1e-5)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["torch", "torch, old format", "pickle", "beside tensors"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, how):
    mark, path = tmp_path / "code-ran", tmp_path / "evil.pt"
    evil = Evil(mark)
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        content = foreign().state_dict() | {"extra": evil} if how == "beside tensors" else {"state_dict": evil}
        torch.save(content, path, _use_new_zipfile_serialization=how != "torch, old format")
    with pytest.raises(UserError, match="evil.pt is refused"):
        load_codec(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(evil))  # it would have
    assert mark.exists()


def message_for(name):
    """The message the file or folder ends in: one line that names it."""
    with pytest.raises(UserError) as error:
        load_codec(name)
    assert "\n" not in str(error.value) and str(name) in str(error.value)
    return str(error.value)


@pytest.mark.filterwarnings("error")  # a warning would be a second line
def test_garbage_is_one_line_of_error(random_codec, tmp_path):
    path = tmp_path / "garbage.pt"
    torch.save(random_codec().state_dict(), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = [b"", b"not a state dict", b"PK\x03\x04", b"\x80\x02", rng.bytes(500), whole[: len(whole) // 2]]
    broken += [
        b"\x80\x02.",
        b"\x80\x02}b.",
        b"\x80\x02r",
        b"\x80\x02h\x05.",
    ]  # IndexError, struct.error, KeyError in torch
    for content in broken:
        path.write_bytes(content)
        message_for(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "is not a state dict"),
        ({"a": 3.0}, "is not a state dict"),
        ({}, "has 0 convolutions"),
        ({"lin.weight": torch.zeros(3, 4)}, "has 0 convolutions"),
        ({f"c{i}.weight": torch.zeros(4, 4, 3) for i in range(7)}, "has 7 convolutions"),
        ({f"c{i}.weight": torch.zeros(4, 4, 3) for i in range(6)}, "has no codebook"),
        ({**{f"c{i}.weight": torch.zeros(4, 4, 3) for i in range(6)}, "book": torch.zeros(9, 4)}, "is not a VQ-VAE"),
    ],
)
def test_a_state_dict_of_something_else_is_one_line_of_error(tmp_path, content, says):
    torch.save(content, tmp_path / "other.pt")
    assert says in message_for(tmp_path / "other.pt")


def test_the_bare_state_dict_of_an_fsq_codec_is_not_taken_for_another(random_codec, tmp_path):
    torch.save(random_codec("fsq", 1, 64).state_dict(), tmp_path / "fsq.pt")
    assert "given by its folder" in message_for(tmp_path / "fsq.pt")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_folder_that_is_no_codec_is_one_line_of_error(random_codec, gpt_folder, tmp_path):
    assert "not found" in message_for(tmp_path / "nowhere")
    assert "not found" in message_for(tmp_path)
    message_for(gpt_folder())  # a GPT, which has a config.json too
    folder = tmp_path / "codec"
    random_codec().save_pretrained(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert "cannot be read" in message_for(folder)
    (folder / "model.safetensors").write_bytes(weights)
    config = (folder / "config.json").read_text()
    for broken in ("{", "[]", config.replace('"hidden_size": 8', '"hidden_size": "wide"'),
                   config.replace('"patch_size": 1', '"patch_size": 0'),
                   config.replace('"quantizer": "vq"', '"quantizer": "vp"')):  # fmt: skip
        assert broken != config
        (folder / "config.json").write_text(broken)
        assert "cannot be read" in message_for(folder)
