"""Drafts of an answer's next tokens: what followed its last tokens elsewhere.

Answers of a group, and of the steps before, repeat each other's phrases and quote their prompts. One pass verifies all
tokens of a draft. A token follows from the uniform number of its place (`decoding.drawn`), so the drafted tokens that
are taken are those that would have been drawn one after the other: samples do not depend on drafts. (Speculative
decoding is Leviathan et al. 2023, arXiv:2211.17192; lookup instead of a second model is Saxena's prompt lookup.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from stonk_trainer.errors import UserError
from stonk_trainer.terminal import log

MOST = 8  # tokens of a draft
HELP = (  # of the key draft_tokens
    "Tokens of an answer that are drafted from what followed its last tokens elsewhere, and verified in one pass; the "
    f"samples are the same. auto: as many as pay here; 0: none; up to {MOST}."
)
LONGEST = 3  # tokens that are looked up
RECENT = 20_000  # tokens of earlier answers that are drafted from
MEMORY = 0.95  # weight, after each pass, of what came true before
REST = 32  # passes without drafts where none pays; twice as many each time that this is found again
LONGEST_REST = 8192

_Index = dict[tuple[int, ...], tuple[list[int], int]]  # a run of tokens: where it was last, a list and the place after


def tokens_of(value: str) -> int | None:
    """The number of the key `draft_tokens`, None for auto. Raises UserError for anything else."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) <= MOST:
        return int(value)
    raise UserError(f"draft_tokens: {value} is not auto or a number from 0 to {MOST}")


class Drafter:
    """Drafts for the rows of one rollout after another.

    tokens: of each draft; None: as many as pay, by what came true and by `cost`. lasting: draft also from the answers
    of earlier rollouts. Attributes: is_off, once it does not draft here. cost, of each further token of a pass, as a
    share of a pass of one; None until it is measured. passes, of the model so far, and drafted and right, the tokens.
    """

    def __init__(self, tokens: int | None = None, lasting: bool = False):
        self.tokens, self.lasting = tokens, lasting
        self.cost: float | None = None
        self.passes = self.drafted = self.right = 0
        self.is_off = tokens == 0
        self._recent: deque[list[int]] = deque()
        # what came true, forgotten slowly: rows, those with a draft, tokens that were right, drafts that were wrong
        self._seen = [2.0, 1.0, 1.0, 1.0]
        self._rest, self._next_rest = 0, REST
        self._asked = False

    def switch_off(self, reason: str) -> None:
        """Draft no more, and say why, once."""
        if not self.is_off:
            log.info("answers are not drafted: %s", reason)
        self.is_off = True

    # --------------------------------------------------------------------------------------------- a rollout

    def begin(self, rows: Sequence[list[int]]) -> None:
        """rows: the tokens of the prompts, to each of which `grow` adds those of its answer."""
        self._rows = list(rows)
        self._answers_at = [len(ids) for ids in rows]
        self._learnt = list(self._answers_at)
        self._index: _Index = {}
        self._of_prompt: list[_Index] = []  # of each row; made when drafts are asked for

    def _learn_all(self) -> None:
        """Put what is not there yet into the indices."""
        if not self._of_prompt:
            of_prompt: dict[tuple[int, ...], _Index] = {}
            for ids, at in zip(self._rows, self._answers_at, strict=True):
                key = tuple(ids[:at])
                if key not in of_prompt:
                    of_prompt[key] = {}
                    _learn(of_prompt[key], list(key), 1)
                self._of_prompt.append(of_prompt[key])
            for ids in self._recent:
                _learn(self._index, ids, 1)
        for row, ids in enumerate(self._rows):
            _learn(self._index, ids, self._learnt[row])
            self._learnt[row] = len(ids)

    def length(self) -> int:
        """How many tokens to draft for the next pass."""
        best = self._length()
        self._asked = best > 0
        if best:
            self._learn_all()
        return best

    def _length(self) -> int:
        if self.tokens is not None:
            return self.tokens
        if self._rest:
            self._rest -= 1
            return 0
        rows, with_draft, right, wrong = self._seen
        chance, share = right / (right + wrong), with_draft / rows
        gains, found = [1.0], 1.0  # tokens that a pass brings a row, for what it costs
        for count in range(1, MOST + 1):
            found += share * chance**count
            gains.append(found / (1 + (self.cost or 0.0) * count))
        best = gains.index(max(gains))
        if best:
            self._next_rest = REST
        else:
            self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, LONGEST_REST)
        return best or 1  # one is tried before a rest, so that it is seen when drafts come true again

    def grow(self, rows: Sequence[int], tokens: Sequence[list[int]]) -> None:
        """Add the next tokens of these rows' answers."""
        self.passes += 1
        for row, found in zip(rows, tokens, strict=True):
            self._rows[row] += found

    def draft(self, row: int, most: int) -> list[int]:
        """At most `most` tokens that may follow those of a row; none where its last tokens are new."""
        ids = self._rows[row]
        for length in range(min(LONGEST, len(ids)), 0, -1):
            key = tuple(ids[-length:])
            for index in (self._index, self._of_prompt[row]):
                where, at = index.get(key, (ids, len(ids)))
                if at < len(where):
                    return where[at : at + most]
        return []

    def count(self, drafts: Sequence[int], right: Sequence[int]) -> None:
        """Remember how many tokens of each row's draft came true in a pass."""
        if not self._asked:
            return
        tried = [(d, r) for d, r in zip(drafts, right, strict=True) if d]
        self.drafted += sum(drafts)
        self.right += sum(right)
        found = len(drafts), len(tried), sum(r for _, r in tried), sum(r < d for d, r in tried)
        self._seen = [MEMORY * old + new for old, new in zip(self._seen, found, strict=True)]

    def end(self) -> None:
        """After a rollout: keep its answers, where drafts last."""
        if not self.lasting or self.is_off:
            return
        self._recent.extend(ids[at:] for ids, at in zip(self._rows, self._answers_at, strict=True))
        kept = sum(map(len, self._recent))
        while kept > RECENT:
            kept -= len(self._recent.popleft())

    # --------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """What the next drafts depend on: in 16 bit, how many tokens a pass has moves a sample now and then."""
        rest = self._rest, self._next_rest
        return {"cost": self.cost, "seen": self._seen, "rest": rest, "recent": list(self._recent)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.cost, self._seen, (self._rest, self._next_rest) = state["cost"], list(state["seen"]), state["rest"]
        self._recent = deque(state["recent"])


def _learn(index: _Index, ids: list[int], start: int) -> None:
    """Put what follows each run of tokens in the index, from the token number `start` on; the latest counts."""
    for at in range(max(start, 1), len(ids)):
        for length in range(1, min(LONGEST, at) + 1):
            index[tuple(ids[at - length : at])] = ids, at
