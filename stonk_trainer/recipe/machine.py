"""What this machine makes of a recipe: a GPU or none, bfloat16 or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stonk_trainer.models.loading import lacks_bfloat16

if TYPE_CHECKING:
    from trl import ModelConfig


def settings(trainer: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that differ here from what the recipe's `values` say.

    Where a GPU has no bfloat16, fp16 mixed precision takes its place, with weights in float16 below LoRA (4-bit weights
    are computed in it too); weights that are trained themselves are in float32, as loss scaling needs.
    """
    import torch

    here: dict[str, Any] = {}
    if "use_cpu" not in values and not torch.accelerator.is_available():
        here["use_cpu"] = True
    if values.get("use_cpu") or not lacks_bfloat16():
        return here
    trains, mixed = trainer != "eval", values.get("bf16")
    mixed = not values.get("fp16") if mixed is None else mixed  # as TRL reads it
    half = values.get("dtype") == "bfloat16" or trains and values.get("dtype") == "auto"
    if half:
        here["dtype"] = "float16" if values.get("use_peft") or not trains else "float32"
    if trains and (half or mixed):
        here |= {"bf16": False, "fp16": True}
    if values.get("bf16_full_eval"):
        here |= {"bf16_full_eval": False, "fp16_full_eval": True}
    return here


def notes(model: ModelConfig, here: Mapping[str, Any]) -> list[str]:
    """What to know of a run on this machine, a line each. here: what `settings` returned."""
    import torch

    found = []
    if "fp16" in here or "dtype" in here:
        found.append("this GPU has no bfloat16: float16 takes its place")
    if not torch.accelerator.is_available():
        if model.load_in_4bit:
            found.append("4-bit weights on a CPU work but are about ten times slower than bf16: --load_in_4bit false")
        if model.dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            found.append(
                "this CPU has no instructions for bfloat16, which is ten times slower here or worse: --dtype float32"
            )
    return found
