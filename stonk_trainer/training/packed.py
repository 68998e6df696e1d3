"""Rows that begin alike as one packed row: each distinct token is computed once, and none is padding.

TRL's prefix trie lays the row out (`TreeRow`: a group's prompt, a system prompt of several groups, what answers have in
common at their start). Its own attention needs a FlashAttention 3 kernel; the one here runs wherever PyTorch's does. No
cache is in the graph, so activation checkpointing, sharded weights and adapters work as without it.

Shape suffixes: B rows, L tokens of a padded row, C of them of the completion, M places of the packed row that are
scored.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
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

    def __init__(self, packed: dict[str, torch.Tensor]):
        starts, ends = (packed[f"tree_cu_seqlens_{name}"].tolist() for name in ("q", "k"))
        index, number_of = packed["tree_kv_index"].tolist(), {start: i for i, start in enumerate(starts)}
        self.lengths = [end - start for start, end in zip(starts, starts[1:], strict=False)]
        self.paths: list[list[int]] = []
        for at, end in zip(ends, ends[1:], strict=False):
            path = []
            while at < end:
                path.append(number_of[index[at]])
                at += self.lengths[path[-1]]
            self.paths.append(path)
        self.used = False
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def mask(self, path: list[int], device: torch.device) -> torch.Tensor | None:
        """What a segment sees of its path: the lower triangle, from the corner at the right. All layers share it."""
        queries, keys = self.lengths[path[-1]], sum(self.lengths[number] for number in path)
        if len(path) == 1 or queries == 1:  # causal by itself, or it sees all
            return None
        if (queries, keys) not in self._masks:
            sees = torch.ones(queries, keys, dtype=torch.bool, device=device)
            self._masks[queries, keys] = sees.tril(keys - queries)
        return self._masks[queries, keys]


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
    for path in tree.paths:
        own, root = path[-1], len(path) == 1
        seen, read = (states[own] if root else torch.cat([states[i] for i in path], dim=2) for states in (keys, values))
        found.append(
            scaled_dot_product_attention(
                queries[own],
                seen,
                read,
                attn_mask=tree.mask(path, query.device),
                dropout_p=dropout,
                is_causal=root,
                scale=scaling,
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


def lay_out(ids_BL: torch.Tensor, mask_BL: torch.Tensor, completion: int, most: int | None = None) -> list[Layout]:
    """Layouts of rows that may be padded on both sides; their last `completion` tokens are to be scored.

    most: distinct tokens of a layout; a row that is longer is one of its own. None: all rows are one layout.
    """
    kept_BL = mask_BL.bool().cpu()
    is_completion_L = torch.arange(ids_BL.shape[1]) >= ids_BL.shape[1] - completion
    trees, firsts = [TreeRow()], [0]
    for number, (ids_L, kept_L) in enumerate(zip(ids_BL.cpu(), kept_BL, strict=True)):
        ids, unused = ids_L[kept_L], torch.zeros(int(kept_L.sum()))  # of its loss
        sample = {"input_ids": ids, "completion_mask": is_completion_L[kept_L], "old_log_probs": unused}
        sample |= {"advantage": 0.0, "group_id": 0}
        if most and trees[-1].samples and not trees[-1].fits(sample, most):
            trees.append(TreeRow())
            firsts.append(number)
        trees[-1].add(sample)
    return [
        _layout(tree, kept_BL[first : first + len(tree.samples), -completion:], first, ids_BL.device)
        for tree, first in zip(trees, firsts, strict=True)
    ]


def _layout(tree: TreeRow, kept_BC: torch.Tensor, first: int, device: torch.device) -> Layout:
    """first: the number of the tree's first row."""
    packed = tree.pack()
    scored_M, place_N = packed["token_index"].unique(return_inverse=True)
    inputs = {
        "input_ids": packed["input_ids"][None].to(device),
        "position_ids": packed["position_ids"][None].to(device),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),  # 4 dimensions: taken as it is
        "scored": scored_M.to(device),
        "tree": Tree(packed),
    }
    row_N, column_N = kept_BC.nonzero(as_tuple=True)  # the order of `token_index`
    labels_1M = packed["shift_labels"][scored_M][None]
    return Layout(inputs, *(tensor.to(device) for tensor in (labels_1M, row_N + first, column_N, place_N)))


def accept_packed(model: PreTrainedModel) -> None:
    """Let a causal LM with TRL's fused head take packed rows, and its backbone return the states that are scored.

    `model(layouts=[…])` returns (log-probabilities 1 x M, entropies or None) for each layout. All but the last are
    computed anew in the backward pass, so that one layout's activations are in memory at a time. Without layouts,
    nothing changes.
    """
    model.set_attn_implementation(ATTENTION)
    backbone, fused = model.base_model, model.forward
    plain = backbone.forward

    def backbone_forward(self: Any, *args: Any, scored: torch.Tensor | None = None, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        if scored is not None:
            output.last_hidden_state = output.last_hidden_state[:, scored]
        return output

    def one(layout: Layout) -> tuple[torch.Tensor, torch.Tensor | None]:
        output = fused(**layout.inputs, shift_labels=layout.labels_1M, fused_lm_head=True)
        if not layout.inputs["tree"].used:
            raise RuntimeError("the model's layers do not pass `tree` to their attention: set shared_prefix: false")
        return output.log_probs, output.entropy

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, layouts: Sequence[Layout] | None = None, **kwargs: Any) -> Any:
        if layouts is None:
            return fused(*args, **kwargs)
        *early, last = layouts
        return [checkpoint(one, layout, use_reentrant=False) for layout in early] + [one(last)]

    backbone.forward = types.MethodType(backbone_forward, backbone)
    model.forward = types.MethodType(forward, model)


def log_probabilities(
    model: torch.nn.Module,
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    completion: int,
    most: int | None = None,
    sharded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B x C log-probabilities of the last `completion` tokens of each row, B x C entropies), 0 where masked.

    model: as `accept_packed` leaves it; no entropies if its head does not compute them. most: as of `lay_out`. sharded:
    the weights are, so that all processes must make as many passes.
    """
    layouts = lay_out(ids_BL, mask_BL, completion, most)
    own = len(layouts)
    if sharded and most:
        count = torch.tensor(own, device=ids_BL.device)
        torch.distributed.all_reduce(count, op=torch.distributed.ReduceOp.MAX)
        layouts += layouts[-1:] * (int(count) - own)  # whose numbers count for nothing
    found = model(layouts=layouts)

    def spread(values: Sequence[torch.Tensor]) -> torch.Tensor:
        result_BC = values[0].new_zeros(len(ids_BL), completion)
        for layout, values_1M in zip(layouts[:own], values[:own], strict=True):
            result_BC = result_BC.index_put((layout.row_N, layout.column_N), values_1M[0, layout.place_N])
        return result_BC + 0.0 * sum(values_1M.sum() for values_1M in values[own:])

    logps, entropies = zip(*found, strict=True)
    return spread(logps), None if entropies[0] is None else spread(entropies)
