"""Rows that begin alike as one packed row: each distinct token is computed once, and none is padding.

A group's prompt, a system prompt of several groups, and what answers have in common at their start are there once.
(TRL's trie, `trl.experimental.async_grpo.packing`, goes token by token in Python, which took a tenth of a small GPT's
step.) The attention runs wherever PyTorch's does. No cache is in the graph, so activation
checkpointing, sharded weights and adapters work as without it.

Shape suffixes: B rows, L tokens of a padded row, C of them of the completion, M places of the packed row that are
scored, n rows that attend together.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import embedding, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_tree"  # PyTorch's attention, which also knows packed rows

Slice = tuple[int, int]  # of a packed row: its first place, and the one after its last


class Tree:
    """What the places of a packed row attend to: to the run of tokens they are in, and to what is before it.

    runs: (what is before it in its rows, the run itself), side by side, the whole of the row. Runs of one shape attend
    together. used: whether an attention has read it.
    """

    def __init__(self, runs: Sequence[tuple[list[Slice], Slice]], device: torch.device):
        alike: dict[tuple[int, int], list[tuple[list[Slice], Slice]]] = {}
        for before, own in runs:
            alike.setdefault((own[1] - own[0], sum(end - start for start, end in before)), []).append((before, own))
        in_order = [run for of_shape in alike.values() for run in of_shape]
        # (runs, tokens of each, tokens that their last sees)
        self.shapes = [(len(of_shape), own, own + before) for (own, before), of_shape in alike.items()]
        queries = _places([own for _, own in in_order])
        self.queries, self.back = queries.to(device), queries.argsort().to(device)
        self.seen = _places([part for before, own in in_order for part in (*before, own)]).to(device)
        self.used = False
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def mask(self, own: int, seen: int) -> torch.Tensor | None:
        """What the last `own` of `seen` places see: the lower triangle. All layers share it; None: all of it."""
        if own == 1:
            return None
        if (own, seen) not in self._masks:
            sees = torch.ones(own, seen, dtype=torch.bool, device=self.seen.device)
            self._masks[own, seen] = sees.tril(seen - own)
        return self._masks[own, seen]


def _places(slices: Sequence[Slice]) -> torch.Tensor:
    return torch.cat([torch.arange(start, end) for start, end in slices])


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
    queries = _taken(query, tree.queries).split([rows * own for rows, own, _ in tree.shapes])
    keys, values = (
        _taken(states, tree.seen).split([rows * seen for rows, _, seen in tree.shapes]) for states in (key, value)
    )
    found = []
    for (rows, own, seen), *states in zip(tree.shapes, queries, keys, values, strict=True):
        of_rows = [part.unflatten(0, (rows, -1)).transpose(1, 2) for part in states]  # n x heads x tokens x dimension
        read = scaled_dot_product_attention(
            of_rows[0],
            repeat_kv(of_rows[1], groups),
            repeat_kv(of_rows[2], groups),
            attn_mask=tree.mask(own, seen) if seen > own else None,
            dropout_p=dropout,
            is_causal=seen == own,
            scale=scaling,
        )
        found.append(read.transpose(1, 2).flatten(0, 1))
    output = torch.cat(found)
    return embedding(tree.back, output.flatten(1)).view_as(output)[None], None


def _taken(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Places x heads x dimension of 1 x heads x places x dimension, as an embedding, whose backward pass is fast."""
    table = states[0].transpose(0, 1)
    return embedding(index, table.flatten(1)).unflatten(1, table.shape[1:])


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
    rows = [ids_L[kept_L] for ids_L, kept_L in zip(ids_BL.cpu(), kept_BL, strict=True)]
    common = _common(rows)
    layouts: list[list[int]] = [[]]
    tokens = 0
    for row, ids in enumerate(rows):
        new = len(ids) - max((common[row][other] for other in layouts[-1]), default=0) if most else 0
        if most and layouts[-1] and tokens + new > most:
            layouts.append([])
            tokens, new = 0, len(ids)
        layouts[-1].append(row)
        tokens += new
    kept_BC = kept_BL[:, kept_BL.shape[1] - completion :]
    return [_layout(rows, chosen, common, kept_BC, ids_BL.device) for chosen in layouts]


def _common(rows: Sequence[torch.Tensor]) -> list[list[int]]:
    """How many tokens each row has in common with each row before it, from the first on."""
    ids_BL = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-1)
    ends_B1 = -2 - torch.arange(len(rows))[:, None]  # no two rows are alike there
    ids_BL = torch.cat([ids_BL, ends_B1], 1)
    found = []
    for row, ids_L in enumerate(ids_BL):
        same = (ids_BL[:row] != ids_L).int().argmax(1)  # the first that differs
        found.append(same.clamp(max=len(rows[row])).tolist())
    return found


def _layout(
    rows: Sequence[torch.Tensor],
    chosen: Sequence[int],
    common: Sequence[Sequence[int]],
    kept_BC: torch.Tensor,
    device: torch.device,
) -> Layout:
    """The layout of the rows `chosen`: each begins with what it has in common with the first of those most like it."""
    whole: dict[int, list[Slice]] = {}  # where the tokens of each row are
    runs, ids, positions = [], [], []
    places, labels = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
    size = 0
    for row in chosen:
        like = max(whole, key=lambda other: common[row][other], default=None)
        shared, length = 0 if like is None else common[row][like], len(rows[row])
        before = [] if like is None else _first(whole[like], shared)
        own = size, size + length - shared
        size = own[1]
        if length > shared:
            runs.append((before, own))
            ids.append(rows[row][shared:])
            positions.append(torch.arange(shared, length))
        whole[row] = before + [own] * (length > shared)
        scored = int(kept_BC[row].sum())
        if scored:
            places.append(_places(whole[row])[length - scored - 1 : length - 1])
            labels.append(rows[row][length - scored :])
    # a place that several rows share may predict another token of each
    vocabulary = int(torch.cat(ids).max()) + 1
    both_M, place_N = (torch.cat(places) * vocabulary + torch.cat(labels)).unique(return_inverse=True)
    scored_M, labels_M = both_M // vocabulary, both_M % vocabulary
    inputs = {
        "input_ids": torch.cat(ids)[None].to(device),
        "position_ids": torch.cat(positions)[None].to(device),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),  # 4 dimensions: taken as it is
        "scored": scored_M.to(device),
        "tree": Tree(runs, device),
    }
    is_here_B1 = torch.zeros(len(rows), 1, dtype=torch.bool).index_fill(0, torch.tensor(chosen), True)
    row_N, column_N = (kept_BC & is_here_B1).nonzero(as_tuple=True)  # in the order of the rows
    return Layout(inputs, *(tensor.to(device) for tensor in (labels_M[None], row_N, column_N, place_N)))


def _first(slices: Sequence[Slice], count: int) -> list[Slice]:
    """The first `count` places of slices."""
    found = []
    for start, end in slices:
        if count > 0:
            found.append((start, min(end, start + count)))
        count -= end - start
    return found


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
