"""Rows that begin alike as one packed row: each distinct token is computed once, and none is padding.

TRL's prefix trie lays the row out (`TreeRow`: a group's prompt, a system prompt of several groups, what answers have in
common at their start). Its own attention needs a FlashAttention 3 kernel; the one here runs wherever PyTorch's does. No
cache is in the graph, so activation checkpointing, sharded weights and adapters work as without it.

Shape suffixes: B rows, L tokens of a padded row, C of them of the completion, M places of the packed row that are
scored.
"""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.experimental.async_grpo.packing import TreeRow

ATTENTION = "sdpa_tree"  # PyTorch's attention, which also knows packed rows


class Tree:
    """The segments of a packed row; each attends to itself and to those on its path from the root.

    lengths: of the segments, in the order of the row. paths: the numbers of the segments on each path, its own last.
    used: whether an attention has read it.
    """

    def __init__(self, packed: dict[str, torch.Tensor], device: torch.device):
        starts, ends = (packed[f"tree_cu_seqlens_{name}"].tolist() for name in ("q", "k"))
        index, number_of = packed["tree_kv_index"].tolist(), {start: i for i, start in enumerate(starts)}
        self.lengths = [end - start for start, end in zip(starts, starts[1:], strict=False)]
        self.paths: list[list[int]] = []
        self.masks: list[torch.Tensor | None] = []
        for at, end in zip(ends, ends[1:], strict=False):
            path, keys = [], end - at
            while at < end:
                path.append(number_of[index[at]])
                at += self.lengths[path[-1]]
            queries = self.lengths[path[-1]]
            sees_all = len(path) == 1 or queries == 1  # or the lower triangle, from the corner at the right
            mask = None if sees_all else torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
            self.paths.append(path)
            self.masks.append(mask)
        self.used = False


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree: Tree | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' `sdpa`, and with a `tree` that of a packed row; for `AttentionInterface`."""
    if tree is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    tree.used = True
    groups = getattr(module, "num_key_value_groups", 1)
    queries, keys, values = (
        states.split(tree.lengths, dim=2) for states in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    )
    found = []
    for path, mask in zip(tree.paths, tree.masks, strict=True):
        own, root = path[-1], len(path) == 1
        seen, read = (states[own] if root else torch.cat([states[i] for i in path], dim=2) for states in (keys, values))
        found.append(
            scaled_dot_product_attention(
                queries[own], seen, read, attn_mask=mask, dropout_p=dropout, is_causal=root, scale=scaling
            )
        )
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why rows cannot be packed for this model, whose cache keeps every token; None when they can."""
    implementation = model.config._attn_implementation
    if implementation not in ("sdpa", ATTENTION):
        return f"attn_implementation is {implementation}"
    if not model._supports_attention_backend:
        return f"the attention of {model.config.model_type} models cannot be replaced"
    return None


def accept_packed(model: PreTrainedModel) -> None:
    """Let a causal LM take packed rows, and its backbone the argument `scored`: the places whose states are returned.

    Without them, nothing changes.
    """
    model.set_attn_implementation(ATTENTION)
    backbone = model.base_model
    plain = backbone.forward

    def forward(self: Any, *args: Any, scored: torch.Tensor | None = None, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        if scored is not None:
            output.last_hidden_state = output.last_hidden_state[:, scored]
        return output

    backbone.forward = types.MethodType(forward, backbone)


class Layout(NamedTuple):
    """Rows as one packed row.

    inputs: of the backbone. labels_1M: the tokens that the M scored places predict. row_N, column_N, place_N: of each
    of the N completion tokens of the rows, where it is among B x C and which of the M places predicts it.
    """

    inputs: dict[str, Any]
    labels_1M: torch.Tensor
    row_N: torch.Tensor
    column_N: torch.Tensor
    place_N: torch.Tensor


def lay_out(ids_BL: torch.Tensor, mask_BL: torch.Tensor, completion: int) -> Layout:
    """The layout of rows that may be padded on both sides; their last `completion` tokens are to be scored."""
    device, row, kept_BL = ids_BL.device, TreeRow(), mask_BL.bool().cpu()
    is_completion_L = torch.arange(ids_BL.shape[1]) >= ids_BL.shape[1] - completion
    for ids_L, kept_L in zip(ids_BL.cpu(), kept_BL, strict=True):
        ids, unused = ids_L[kept_L], torch.zeros(int(kept_L.sum()))  # of its loss
        sample = {"input_ids": ids, "completion_mask": is_completion_L[kept_L], "old_log_probs": unused}
        row.add({**sample, "advantage": 0.0, "group_id": 0})
    packed = row.pack()
    scored_M, place_N = packed["token_index"].unique(return_inverse=True)
    inputs = {
        "input_ids": packed["input_ids"][None].to(device),
        "position_ids": packed["position_ids"][None].to(device),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),  # 4 dimensions: taken as it is
        "scored": scored_M.to(device),
        "tree": Tree(packed, device),
    }
    row_N, column_N = kept_BL[:, -completion:].nonzero(as_tuple=True)  # the order of `token_index`
    labels_1M = packed["shift_labels"][scored_M][None]
    return Layout(inputs, *(tensor.to(device) for tensor in (labels_1M, row_N, column_N, place_N)))


def log_probabilities(
    model: torch.nn.Module, ids_BL: torch.Tensor, mask_BL: torch.Tensor, completion: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B x C log-probabilities of the last `completion` tokens of each row, B x C entropies), 0 where masked.

    model: as `accept_packed` and TRL's fused LM head leave it; no entropies if that one does not compute them.
    """
    layout = lay_out(ids_BL, mask_BL, completion)
    outputs = model(**layout.inputs, shift_labels=layout.labels_1M, fused_lm_head=True)
    if not layout.inputs["tree"].used:
        raise RuntimeError("the model's layers do not pass `tree` to their attention: set shared_prefix: false")

    def spread(values_1M: torch.Tensor) -> torch.Tensor:
        empty_BC = values_1M.new_zeros(len(ids_BL), completion)
        return empty_BC.index_put((layout.row_N, layout.column_N), values_1M[0, layout.place_N])

    return spread(outputs.log_probs), None if outputs.entropy is None else spread(outputs.entropy)
