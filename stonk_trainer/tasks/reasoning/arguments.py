"""The recipe keys of the reasoning task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stonk_trainer.errors import UserError
from stonk_trainer.options import option
from stonk_trainer.task import TaskArguments


@dataclass
class ReasoningArguments(TaskArguments):
    """Recipe keys of the reasoning task."""

    sft_recipe: Literal["default", "r1_ot", "r1_ot_mixed", "dolci_mid", "r1_rs_sft"] | None = option(
        None, "SFT: a named mixture of sources."
    )
    sources: list[str] | None = option(
        None, "SFT: a mixture of your own, NAME[:path=…,stop=…,ratio=…,mode=cot|answer_only,subjects=a+b] each."
    )
    source_paths: list[str] = option(
        [], "Local files instead of the Hub: NAME=PATH each (.parquet, .jsonl, or a folder of them)."
    )
    ot_stop: int | None = option(None, "Rows of OpenThoughts read at most; -1: all.")
    ot_mode: Literal["cot", "answer_only"] | None = option(None, "OpenThoughts with reasoning, or the answers alone.")
    dolci_stop: int | None = option(None, "Rows of Dolci read at most; -1: all.")
    chat_ratio: float | None = option(None, "Share of SmolTalk in the mixture, 0 to 1.")
    rs_data: str | None = option(None, "r1_rs_sft: the JSONL file that stonk sample wrote.")
    prompt_field: str | None = option(None, "Column of the prompt in a JSONL file without `messages`.")
    answer_field: str | None = option(None, "Column of the answer there.")
    task_mix: str | None = option(None, "GRPO: sources and their shares, such as gsm8k:0.4,mmlu_science:0.3,math:0.3.")
    reward: list[str] = option(
        ["accuracy", "format"],
        "Reward functions: accuracy, format, overlong, or an import path such as my_rewards:brevity; weigh them with "
        "reward_weights.",
    )
    overlong_buffer: int = option(64, "overlong: tokens below max_completion_length from which length is punished.")
    held_out: float = option(0.02, "Share of train that is validation, of sources whose upstream has none.")

    def __post_init__(self):
        super().__post_init__()
        if self.overlong_buffer < 1:
            raise UserError(f"overlong_buffer: {self.overlong_buffer} must be at least 1")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out: {self.held_out:g} must lie in [0, 1)")
        if self.chat_ratio is not None and not 0 <= self.chat_ratio < 1:
            raise UserError(f"chat_ratio: {self.chat_ratio:g} must lie in [0, 1)")
        if (self.prompt_field is None) != (self.answer_field is None):
            raise UserError("prompt_field and answer_field go together: give both")
        if self.sft_recipe and self.sources:
            raise UserError("sft_recipe and sources both name a mixture: keep one")
