"""Prompts shared by their group: TRL's numbers, TRL's samples, and groups that teach nothing left out."""

from collections import Counter

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from stonk_trainer.errors import UserError
from stonk_trainer.task import Task, TaskArguments
from stonk_trainer.training.grouped import SharedPrefixGRPOTrainer, unsupported_reason
from stonk_trainer.training.resumable import ScoredGRPOTrainer

pytestmark = pytest.mark.slow

GROUP, PROMPTS = 4, 3
LENGTHS = (5, 9, 2)  # words of the prompts, so that some are padded on the left


@pytest.fixture(scope="module")
def random_model_folder(tmp_path_factory, tiny_tokenizer):
    """A small random Qwen2 in fp32, far from uniform, whose completions have many lengths."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(8)
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
        model.lm_head.weight[tiny_tokenizer.eos_token_id] += 0.4
    folder = tmp_path_factory.mktemp("models") / "random"
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


class Silent(Task):
    """A task that says nothing of its answers."""

    REWARDS = ("any",)

    def read(self, rows, completions):
        return [{} for _ in rows]


def reward(completions, **_):
    return [(sum(text.encode()) % 11) / 10 for text in completions]


@pytest.fixture
def make(random_model_folder, tmp_path):
    """A trainer of a class; keys are those of GRPOConfig, `own` those of the trainer."""

    def build(cls, own=None, lora=False, reward=reward, rows=PROMPTS, dropout=0.0, **keys):
        from peft import LoraConfig

        # the random B lets a fresh adapter differ from its base
        config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False)
        peft = {"peft_config": config} if lora else {}
        defaults = {
            "output_dir": str(tmp_path / "run"), "per_device_train_batch_size": GROUP * PROMPTS,
            "num_generations": GROUP, "max_completion_length": 12, "bf16": False, "use_cpu": True, "report_to": "none",
            "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
            "learning_rate": 1e-2, "beta": 0.0, "temperature": 1.0, "max_steps": 1, "seed": 5,
            "model_init_kwargs": {"dtype": "float32"}, "lr_scheduler_type": "constant",
            "mask_truncated_completions": False,
        }  # fmt: skip
        texts = ["up and down " * LENGTHS[i % 3] + str(i) for i in range(rows)]
        torch.manual_seed(7)
        return cls(
            model=random_model_folder,
            args=GRPOConfig(**defaults | keys),
            processing_class=AutoTokenizer.from_pretrained(random_model_folder, padding_side="left"),
            reward_funcs=[reward],
            train_dataset=Dataset.from_dict({"prompt": texts}),
            task=Silent(TaskArguments()),
            **peft,
            **(own or {}),
        )

    return build


def plain_and_shared(make, **keys):
    own = keys.pop("own", {})
    return make(ScoredGRPOTrainer, **keys), make(SharedPrefixGRPOTrainer, own={"shared_prefix": "true"} | own, **keys)


def forced(trainer, completions):
    """Let a trainer sample these completions, in the order of its prompts, instead of its own."""

    def generate(prompt_ids, *_, **__):
        return [completions[tuple(ids)].pop(0) for ids in prompt_ids], None

    trainer._generate_single_turn = generate
    return trainer


def some_completions(trainer, rounds=1, seed=0):
    """{prompt's ids: completions of many lengths}, enough for so many rounds."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for row in trainer.train_dataset:
        ids = tuple(trainer.processing_class(row["prompt"])["input_ids"])
        lengths = torch.randint(1, 13, (GROUP * rounds,), generator=generator).tolist()
        made[ids] = [torch.randint(5, 300, (length,), generator=generator).tolist() for length in lengths]
    return made


def gradients(trainer):
    named = trainer.model.named_parameters()
    return torch.cat([p.grad.flatten() for _, p in named if p.requires_grad and p.grad is not None])


def one_loss(trainer, completions):
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._step = 0
    trainer.current_gradient_accumulation_steps = 1
    forced(trainer, {ids: list(texts) for ids, texts in completions.items()})
    rows = [row for row in trainer.train_dataset for _ in range(GROUP)]
    batch = trainer._generate_and_score_completions(rows)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradients(trainer), batch


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_log_probabilities_and_gradients_are_trls(make, lora, beta):
    plain, shared = plain_and_shared(make, lora=lora, beta=beta)
    shared.model.load_state_dict(plain.model.state_dict())
    completions = some_completions(plain)
    (loss_a, grad_a, batch_a), (loss_b, grad_b, batch_b) = (one_loss(t, completions) for t in (plain, shared))
    assert len({int(mask.sum()) for mask in batch_a["completion_mask"]}) > 4
    assert int((batch_a["prompt_mask"] == 0).sum()) > 0
    assert loss_a == pytest.approx(loss_b, rel=1e-5, abs=1e-5)
    assert (grad_a - grad_b).norm() / grad_a.norm() < 1e-4
    if beta:
        assert (batch_a["ref_per_token_logps"] - batch_b["ref_per_token_logps"]).abs().max() < 1e-4
    for trainer in (plain, shared):
        ids = torch.cat([batch_a["prompt_ids"], batch_a["completion_ids"]], 1)
        mask = torch.cat([batch_a["prompt_mask"], batch_a["completion_mask"]], 1)
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))  # no group stands together
        with torch.no_grad():
            found = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids[order], mask[order], batch_a["completion_ids"].shape[1], 5, compute_entropy=True
            )
        trainer.found = found
    for a, b in zip(plain.found[:2], shared.found[:2], strict=True):
        assert (a - b).abs().max() < 1e-4


@pytest.mark.parametrize("most", [None, 20], ids=["one pass", "several passes"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"])
def test_every_loss_is_trls(make, loss_type, most):
    keys = {
        "loss_type": loss_type,
        "beta": 0.1,
        "importance_sampling_level": "sequence" if loss_type == "luspo" else "token",
    }
    plain, shared = plain_and_shared(make, own={"packed_tokens": most}, **keys)
    completions = some_completions(plain)
    (loss_a, grad_a, _), (loss_b, grad_b, _) = (one_loss(trainer, completions) for trainer in (plain, shared))
    assert loss_a == pytest.approx(loss_b, rel=1e-5, abs=1e-5)
    assert (grad_a - grad_b).norm() / grad_a.norm() < 1e-4


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"gradient_accumulation_steps": 3, "per_device_train_batch_size": GROUP, "loss_type": "dr_grpo"},
        {"num_iterations": 2, "beta": 0.1},
        {"entropy_coef": 0.01, "top_entropy_quantile": 0.5},
    ],
    ids=["plain", "accumulation", "two iterations", "entropy"],
)
def test_ten_steps_on_the_same_completions_end_in_the_same_weights(make, keys):
    ends = []
    for cls, own in ((ScoredGRPOTrainer, {}), (SharedPrefixGRPOTrainer, {"shared_prefix": "true"})):
        trainer = make(cls, own=own, max_steps=10, learning_rate=1e-3, **keys)
        start = weights(trainer)
        forced(trainer, some_completions(trainer, rounds=10)).train()
        ends.append(weights(trainer))
    assert (ends[0] - start).abs().max() > 1e-3
    assert (ends[0] - ends[1]).abs().max() < 1e-4


@pytest.mark.parametrize("keys", [{}, {"repetition_penalty": 1.3}, {"generation_kwargs": {"min_new_tokens": 6}}])
def test_greedy_rollouts_are_trls_token_for_token(make, keys):
    found = []
    for trainer in plain_and_shared(make, max_completion_length=40, **keys):
        trainer.generation_config.do_sample = False
        ids = [
            trainer.processing_class(row["prompt"])["input_ids"] for row in trainer.train_dataset for _ in range(GROUP)
        ]
        found.append(trainer._generate_single_turn(ids, None, {}, GROUP)[0])
    assert found[0] == found[1]
    assert len({len(tokens) for tokens in found[0]}) > 1


@pytest.mark.parametrize("keys", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.2}], ids=str)
def test_samples_have_trls_distribution(make, keys):
    """The first two tokens of 2,000 samples of one prompt: chi-square over the pairs that occur often enough."""
    counts = []
    for trainer in plain_and_shared(make, max_completion_length=2, rows=1, **keys):
        torch.manual_seed(0)
        ids = [trainer.processing_class(trainer.train_dataset[0]["prompt"])["input_ids"]] * 2000
        counts.append(Counter(map(tuple, trainer._generate_single_turn(ids, None, {}, GROUP)[0])))
    a, b = counts
    often = [pair for pair in a | b if a[pair] + b[pair] >= 10]
    rest = [sum(c.values()) - sum(c[pair] for pair in often) for c in counts]
    cells = [(a[pair], b[pair]) for pair in often] + ([tuple(rest)] if min(rest) else [])
    statistic = sum((x - y) ** 2 / (x + y) for x, y in cells)  # equal sizes: chi-square with len(cells) - 1
    assert len(often) > 3
    from scipy.stats import chi2

    assert chi2.sf(statistic, len(cells) - 1) > 1e-3


def test_samples_do_not_depend_on_drafts_nor_on_dropout(make):
    found = []
    for tokens, dropout in ((0, 0.0), (0, 0.5), (4, 0.5), (None, 0.5)):
        trainer = make(SharedPrefixGRPOTrainer, lora=True, dropout=dropout, own={"draft_tokens": tokens})
        trainer.model.train()
        ids = [trainer.processing_class(row["prompt"])["input_ids"] for row in trainer.train_dataset]
        found.append([trainer._generate_single_turn(ids * GROUP, None, {}, GROUP)[0] for _ in range(2)])
        assert all(module.training for module in trainer.model.modules())
        assert trainer._rollouts == {"train": 2, "eval": 0}
    assert all(answers == found[0] for answers in found)


def test_what_cannot_share_says_why_and_true_is_an_error(make, random_model_folder):
    model = AutoModelForCausalLM.from_pretrained(random_model_folder)
    args = make(ScoredGRPOTrainer).args
    assert unsupported_reason(model, args) is None
    model.config.layer_types = ["sliding_attention", "full_attention", "full_attention"]
    assert "sliding_attention" in unsupported_reason(model, args)
    model.config.layer_types = None
    model._is_stateful = True
    assert "recurrent" in unsupported_reason(model, args)


def test_true_is_an_error_where_auto_falls_back(make, monkeypatch, caplog):
    monkeypatch.setattr("stonk_trainer.training.grouped.unsupported_reason", lambda model, args: "a reason")
    with pytest.raises(UserError, match="shared_prefix: true cannot be done here: a reason"):
        make(SharedPrefixGRPOTrainer, own={"shared_prefix": "true"})
    assert not make(SharedPrefixGRPOTrainer, own={"shared_prefix": "auto"}).shares


@pytest.mark.parametrize("most", [None, 20], ids=["one pass", "several passes"])
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
def test_with_checkpointing_the_gradient_is_trls_too(make, lora, most):
    shared = make(
        SharedPrefixGRPOTrainer,
        own={"shared_prefix": "true", "packed_tokens": most},
        lora=lora,
        gradient_checkpointing=True,
    )
    plain = make(ScoredGRPOTrainer, gradient_checkpointing=True, lora=lora)
    shared.model.load_state_dict(plain.model.state_dict())
    completions = some_completions(plain)
    (loss_a, grad_a, _), (loss_b, grad_b, _) = (one_loss(trainer, completions) for trainer in (plain, shared))
    assert loss_a == pytest.approx(loss_b, rel=1e-5, abs=1e-5) and (grad_a - grad_b).norm() / grad_a.norm() < 1e-4


# ------------------------------------------------------------------------------------------------- useful samples


def half_constant(completions, prompts, **_):
    """No spread in the groups of every second prompt."""
    return [
        0.5 if int(p.split()[-1][-1]) % 2 else (sum(c.encode()) % 11) / 10
        for c, p in zip(completions, prompts, strict=True)
    ]


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"])
def test_skipped_groups_change_no_loss_and_no_gradient(make, loss_type):
    keys = {"reward": half_constant, "loss_type": loss_type}
    plain, shared = plain_and_shared(make, own={"skip_zero_variance": True}, **keys)
    completions = some_completions(plain)
    (loss_a, grad_a, batch), (loss_b, grad_b, _) = (one_loss(trainer, completions) for trainer in (plain, shared))
    assert batch["advantages"].view(-1, GROUP).abs().amax(1).lt(1e-3).sum() == 1
    assert loss_a == pytest.approx(loss_b, rel=1e-5, abs=1e-5)
    assert (grad_a - grad_b).norm() / grad_a.norm() < 1e-4


def test_skipped_groups_are_not_computed(make, monkeypatch):
    shared = make(SharedPrefixGRPOTrainer, own={"skip_zero_variance": True}, reward=half_constant)
    rows = []
    original = SharedPrefixGRPOTrainer._get_per_token_logps_and_entropies

    def count(self, model, input_ids, *args, **keys):
        rows.append(len(input_ids))
        return original(self, model, input_ids, *args, **keys)

    monkeypatch.setattr(SharedPrefixGRPOTrainer, "_get_per_token_logps_and_entropies", count)
    one_loss(shared, some_completions(shared))
    assert rows == [GROUP * (PROMPTS - 1)]


def test_when_no_group_teaches_anything_the_weights_stay(make):
    """The noise of a rounded mean is a gradient too, which Adam would make a step of."""
    trainer = make(
        SharedPrefixGRPOTrainer,
        own={"skip_zero_variance": True},
        reward=lambda completions, **_: [0.075] * len(completions),
        max_steps=3,
    )
    start = weights(trainer)
    trainer.train()
    assert (weights(trainer) - start).abs().max() == 0


def test_resampled_groups_bring_the_useful_share_above_nine_tenths(make):
    shares = {}
    for rounds in (0, 5):
        own = {"skip_zero_variance": True, "resample_groups": rounds}
        trainer = make(SharedPrefixGRPOTrainer, own=own, reward=half_constant, rows=30, max_steps=8)
        trainer.train()
        logged = [line["completions/useful_token_share"] for line in trainer.state.log_history if "loss" in line]
        shares[rounds] = sum(logged) / len(logged)
    assert shares[0] < 0.7 and shares[5] > 0.9
