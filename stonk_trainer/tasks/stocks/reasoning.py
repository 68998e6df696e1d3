"""How well a reasoning argues for its answer: the evidence it cites, for and against, and the faults it has.

A fault is what no honest reasoning has: a false claim, evidence against its own answer, an outlook that contradicts
it, both outlooks at once, repetition, a mere list, words that are none. Reasons are given in words, for `stonk score`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from stonk_trainer.tasks.stocks.claims import Claim
from stonk_trainer.tasks.stocks.words import Sentence, Token, role_of, slips_of

EXTREME = 0.5  # daily volatilities: a smaller move cannot be called overdone
NOTICEABLE = 0.05  # daily volatilities: after a smaller move no rebound or pullback can be expected
CONCEDED = 0.5  # weight of evidence against the answer that the writer sets aside ("although it fell …")
MOST_FACTS = 12  # whoever cites more lists the data instead of choosing from it
MOST_UNKNOWN = 0.25  # share of the words that need not be English of this kind
MOST_CONCLUSIONS = 3  # sentences that state an outlook and cite nothing
MOST_REPEATED = 0.2  # share of the sentences that may repeat another

_SIGN = {"up": 1, "positive": 1, "back up": 1, "down": -1, "negative": -1, "back down": -1, "buy": 1, "sell": -1}
_SIGN |= {"strength": 1, "weakness": -1}
_MEANING = {
    "above",
    "below",
    "so",
    "turn",
    "turn up",
    "turn down",
    "high",
    "low",
    "room",
    "than",
    "from",
    *_SIGN,
}
_CLAUSE_END = {"comma", "so", "as", "contrast"}
_CONTRAST_STARTS = {"however", "but", "still", "yet", "nevertheless", "nonetheless", "although", "though", "despite"}
# Letters and digits that pass for others: zero-width, full-width, Cyrillic, mathematical, digits of other scripts.
_DISGUISED = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\uff01-\uff5e\u0400-\u052f\U0001d400-\U0001d7ff]"
    "|[a-zA-Z][\u0370-\u03ff]|[\u0370-\u03ff][a-zA-Z]|(?![0-9])\\d"
)
_ANSWER = re.compile(r"(?:prediction|answer)\W{0,4}:")
_MENU = re.compile(r"\bUP\W{1,3}(?:or )?DOWN\b|\bDOWN\W{1,3}(?:or )?UP\b")
_UNDECIDED = (
    "up/down", "anything can happen", "anything is possible", "impossible to", "who knows", "both directions",
    "either is possible", "both are possible", "equally likely", "both ways", "any direction",
    "both outcomes", "outcomes are possible", "equal chance",
)  # fmt: skip
_UNDECIDED_ALONE = ("either way", "either direction", "coin flip", "coin toss", "toss-up", "50/50", "hard to say",
                    "cannot tell", "can't tell", "no idea",
                    "is uncertain", "are uncertain", "which way",
                    "as likely as", "not know", "don't know")  # fmt: skip


_CONDITIONS = {"if", "scenario", "case"}
_TRENDS = {"trend", "momentum", "bias", "direction", "is", "remains"}
_OF_MORE = {"otherwise", "overall", "broader", "larger", "longer", "general", "medium", "term"}
# A sentence that starts in lower case, or one that starts twice.
_MISPLACED = re.compile(r"[.!?] [a-z]|[a-z,] (?:The|It|Its|This|That|A|An|But|So|Over|At|Of|To|From|With|And|On|In) ")


class Weighing(NamedTuple):
    """agree, against: weights of the distinct evidence for and against the answer. distinct: share of the sentences
    that repeat no other. faults: what is wrong with the reasoning, in words."""

    agree: float
    against: float
    distinct: float
    faults: list[str]


class _Outlook(NamedTuple):
    """Directions (+1, -1) that the writer expects firmly, names as possible, expects after a move the other way, those
    that moves called overdone would turn to, and those to which words of a reversal hint."""

    firm: set[int]
    weak: set[int]
    turns: set[int]
    overdone: set[int]
    hints: set[int]


def weigh(
    text: str, parts: Sequence[Sentence], claims: Sequence[Claim], wanted: int, volatility: float, names: frozenset[str]
) -> Weighing:
    """text: the reasoning, with its sentences and claims. wanted: +1 when the answer is UP, -1 for DOWN. volatility:
    daily, in percent. names: words of the prompt's texts, which are English too."""
    faults = []
    lower = text.lower()
    false = next((claim for claim in claims if claim.false), None)
    if false:
        faults.append(f'false: "{false.text}": {false.why}')
    conceded = _conceded(parts)
    evident = {claim.sentence: claim.direction for claim in claims if claim.direction}
    outlook = _Outlook(set(), set(), set(), set(), set())
    decided, conclusions = -1, 0
    claimed = {claim.sentence for claim in claims}
    for which, part in enumerate(parts):
        if not _CONDITIONS.isdisjoint(part.words) and {"up", "down"} <= part.kinds and "number" not in part.kinds:
            outlook.weak.update((1, -1))  # "if buyers stay it rises, and if not it falls"
        if not part.kinds.isdisjoint(_OUTLOOK):
            # "overdone" is said of the moves last spoken of
            spoken_of = next((evident[i] for i in range(which, -1, -1) if i in evident), 0)
            if _read_outlook(part, -spoken_of, outlook):
                decided = part.start
                conclusions += which not in claimed

    agree, against, flipped = _evidence(claims, conceded, outlook, wanted, volatility)
    if not agree and wanted in outlook.hints and -wanted not in outlook.firm:
        agree, against = against, agree  # "it rose 3%; a pullback would be normal, so I expect a decline"
    # whoever concludes against most of the evidence must say so, and have some on his side
    if against > (2 * agree if wanted in outlook.firm else agree):
        faults.append("the evidence it cites is against its answer")
    if wanted in outlook.overdone and not flipped and -wanted not in outlook.overdone:
        faults.append("calls a move overdone that it does not cite")
    if problem := _contradiction(lower, parts, claims, outlook, conceded, wanted, decided):
        faults.append(problem)

    distinct, repeats = _repetition(parts, claims)
    repeats = repeats or ("concludes again and again" if conclusions > MOST_CONCLUSIONS else None)
    if repeats:
        faults.append(repeats)
    cited = {claim.fact for claim in claims if claim.grounded and claim.counts}
    if len(cited) > MOST_FACTS:
        faults.append(f"lists {len(cited)} facts instead of choosing some")
    elif cited and _listed(parts, claims, cited):
        faults.append("lists facts without a word on what they mean")
    words = sum(len(part.words) for part in parts)
    slips = sum(slips_of(part.words) for part in parts if "number" in part.kinds)
    if slips and slips + len(_MISPLACED.findall(text)) > max(1, 0.015 * words):
        faults.append("its words make no sentences")
    unknown = sum(part.unknown for part in parts)
    if unknown > MOST_UNKNOWN * words:
        unknown -= sum(word in names and role_of(word) is None for part in parts for word in part.words)
        if unknown > MOST_UNKNOWN * words:
            faults.append("most of its words are no words")
    if not text.isascii() and _DISGUISED.search(text):
        faults.append("letters or digits in disguise")
    if ("prediction" in lower or "answer" in lower) and _ANSWER.search(lower):
        faults.append("the answer stands inside the reasoning")
    if "UP" in text and _MENU.search(text):
        faults.append("echoes the menu of answers")
    return Weighing(agree, against, distinct, faults)


def _conceded(parts: Sequence[Sentence]) -> set[int]:
    """Sentences whose evidence is set aside: with "although" in them, or "However" at the start of the next."""
    found = set()
    for which, part in enumerate(parts):
        if "contrast" in part.kinds:
            found.add(which)
            if which and part.words and part.words[0] in _CONTRAST_STARTS:
                found.add(which - 1)
    return found


# ---------------------------------------------------------------------------------------------------- evidence


def _evidence(
    claims: Sequence[Claim], conceded: set[int], outlook: _Outlook, wanted: int, volatility: float
) -> tuple[float, float, bool]:
    """(for, against, whether a move was read as overdone). Each thing that evidence is about counts once."""
    sides: dict[str, float] = {}
    flipped = False
    for claim in claims:
        direction = claim.direction
        if not direction or not claim.grounded:
            continue
        # "oversold" reads a fall as bullish, and leaves a rise as it is
        expected = -direction in outlook.turns and claim.size >= NOTICEABLE * volatility
        if expected or (-direction in outlook.overdone and claim.size >= EXTREME * volatility):
            direction, flipped = -direction, True
        weight = CONCEDED if direction == -wanted and claim.sentence in conceded else 1.0
        before = sides.get(claim.about)
        if before is None or abs(before) > weight:
            sides[claim.about] = direction * weight
    agree = sum(side * wanted for side in sides.values() if side * wanted > 0)
    against = -sum(side * wanted for side in sides.values() if side * wanted < 0)
    return agree, against, flipped


# ---------------------------------------------------------------------------------------------------- outlook

_OUTLOOK = {"firm", "weak", "own", "turn", "turn up", "turn down", "back up", "back down", "room", "reversal"}
_GO_ON = {"that", "continue", "persist"}  # "a risk that it falls", "the decline should continue"
_PREDICATES = {"continue", "persist", "likely", "expected", "ahead", "due", "tomorrow", "next", "poised", "expect"}


def _read_outlook(part: Sentence, turn: int, outlook: _Outlook) -> bool:
    """Add what a sentence says will come; whether it says so firmly. turn: against the moves last spoken of, as
    "overdone" means."""
    clause: list[Token] = []
    firm = False
    for token in part.tokens:
        if (token.kind not in _CLAUSE_END and token.kind != "number") or token.text in _GO_ON:
            clause.append(token)
            continue
        if clause and not (token.kind == "number" and clause[-1].kind in _SIGN):  # "fell 2.3%" is no outlook
            firm = _read_clause(clause, turn, outlook) or firm
        clause = []
    return bool(clause and _read_clause(clause, turn, outlook)) or firm


def _read_clause(clause: list[Token], turn: int, outlook: _Outlook) -> bool:
    kinds = [token.kind for token in clause]
    nots = [i for i, kind in enumerate(kinds) if kind == "not" and not (i and kinds[i - 1] == "than")]
    sign = -1 if len(nots) % 2 else 1  # "more likely than not" denies nothing
    marks = [i for i, kind in enumerate(kinds) if kind in ("firm", "weak", "own")]
    if sign > 0:
        outlook.overdone.update(direction for kind, direction in (("turn up", 1), ("turn down", -1)) if kind in kinds)
        outlook.hints.update(_SIGN[kind] for kind in kinds if marks and kind in ("back up", "back down"))
        if "turn" in kinds and turn:
            outlook.overdone.add(turn)
        if "reversal" in kinds and turn and (marks or "room" in kinds):
            outlook.turns.add(turn)
    moves = [i for i, kind in enumerate(kinds) if kind in _SIGN]
    if not moves:
        return False
    if "room" in kinds and sign > 0:  # "room to fall back"
        outlook.turns.update(_SIGN[kinds[i]] for i in moves)
    decisive = marks and kinds[marks[-1]] == "firm" and [i for i in moves if i > marks[-1]]
    after = decisive or [i for i in moves if marks and i > marks[0]]
    if not marks or not (after or any(token.text in _PREDICATES for token in clause[marks[-1] :])):
        return False
    chosen = after or moves
    signs = {_SIGN[kinds[i]] for i in chosen}
    if len(signs) > 1 and kinds[chosen[0]] in ("back up", "back down"):
        signs = {_SIGN[kinds[chosen[0]]]}  # "give back some of the gain"
    if len(signs) > 1:
        # "will rise or fall", "a chance of a rise and a chance of a fall"
        if sum(kinds[i] != "firm" for i in marks) > 1 or any(
            token.text == "or" for token in clause[chosen[0] : chosen[-1]]
        ):
            outlook.weak.update(signs)
        return False
    direction = signs.pop() * sign * (-1 if _is_ended(clause, chosen) else 1)
    firm = "weak" not in kinds and "firm" in kinds
    (outlook.firm if firm else outlook.weak).add(direction)
    if any(kinds[i] in ("back up", "back down") and _SIGN[kinds[i]] == direction for i in chosen):
        outlook.turns.add(direction)  # "a pullback is likely"
    return firm


def _is_ended(clause: list[Token], moves: list[int]) -> bool:
    """ "stop falling", "the decline to fade", not "a pause or a pullback"."""
    for at, token in enumerate(clause):
        if token.kind != "end":
            continue
        for move in moves:
            between = clause[min(at, move) + 1 : max(at, move)]
            close = at > move or clause[move].index - token.index <= 3
            if close and not any(t.kind == "and" for t in between):
                return True
    return False


def _contradiction(
    text: str,
    parts: Sequence[Sentence],
    claims: Sequence[Claim],
    outlook: _Outlook,
    conceded: set[int],
    wanted: int,
    decided: int,
) -> str | None:
    """Why what the reasoning says (`text`, in lower case) cannot stand with its answer, else None.

    A firm outlook ("will fall") must agree with the answer. A weak one ("could fall") names a risk and is allowed,
    unless both directions are stated, and only weakly. "Bearish" must be said of bearish evidence. decided: where the
    last sentence with a firm outlook starts; an "either way" before it is no hedge.
    """
    if -wanted in outlook.firm:
        return "states an outlook against its own answer"
    alone = wanted not in outlook.firm
    last = text.find(".", decided) if decided >= 0 else 0
    undecided = any(phrase in text for phrase in _UNDECIDED) or any(
        text.find(phrase, max(0, last)) >= 0 for phrase in _UNDECIDED_ALONE
    )
    if undecided or (alone and len(outlook.weak) > 1):
        return "hedges on both directions"
    evidence: dict[int, set[int]] = {}
    for claim in claims:
        if claim.direction:
            evidence.setdefault(claim.sentence, set()).add(claim.direction)
    mood, moods = 0, set()
    for which, part in enumerate(parts):
        if part.kinds.isdisjoint(_SIGN):
            continue
        for position, token in enumerate(part.tokens):
            trend = position and part.tokens[position - 1].text in _TRENDS and token.text in ("up", "down")
            if token.kind not in ("positive", "negative") and not trend:
                if token.kind in _SIGN and position > 1 and part.tokens[position - 1].text == "or":
                    other = part.tokens[position - 2].kind
                    if _SIGN.get(other) == -_SIGN[token.kind]:
                        return "hedges on both directions"
                continue
            near = part.tokens[max(0, position - 4) : position + 3]
            if any(t.kind in ("not", "end", "weak", "firm") for t in near):
                continue
            sign = _SIGN[token.kind]
            if which in conceded or outlook.turns or outlook.overdone:
                continue
            if evidence.get(which) == {-sign} and _OF_MORE.isdisjoint(part.words):
                return "reads evidence the wrong way round"
            if which not in evidence:
                mood += sign * wanted * (not trend)
                moods.add(sign)
    if len(moods) > 1:
        return "says one thing and its opposite"
    return "speaks against its own answer" if mood < 0 else None


# ---------------------------------------------------------------------------------------------------- form


def _repetition(parts: Sequence[Sentence], claims: Sequence[Claim]) -> tuple[float, str | None]:
    """(share of the sentences that repeat no other, why this is a fault or None).

    A sentence repeats another when it has nearly the same words and cites nothing new. Citing again what was cited is
    allowed now and then; it is a fault when as many sentences do it as cite something.
    """
    facts: dict[int, set[str]] = {}
    stated: Counter[tuple[int, str | None]] = Counter()
    for claim in claims:
        if claim.grounded or claim.false:
            facts.setdefault(claim.sentence, set()).add(claim.fact or claim.text)
            stated[claim.sentence, claim.fact] += claim.counts and claim.grounded
    seen: set[str] = set()
    recent: list[frozenset[str]] = []
    exact: set[frozenset[str]] = set()
    total = repeated = novel = again = 0
    for which, part in enumerate(parts):
        words = frozenset(part.words)
        if len(words) < 2:
            continue
        total += 1
        cited = facts.get(which, set())
        is_new = bool(cited - seen)
        novel += is_new
        again += bool(cited) and not is_new
        seen |= cited
        if not is_new and (words in exact or _is_alike(words, recent)):
            repeated += 1
        elif words not in exact:
            exact.add(words)
            recent = [*recent[-9:], words]
    if not total:
        return 1.0, None
    if repeated > MOST_REPEATED * total or again >= max(2, novel) or max(stated.values(), default=0) > 2:
        return 1 - repeated / total, "repeats itself"
    return 1 - repeated / total, None


def _is_alike(words: frozenset[str], others: Sequence[frozenset[str]]) -> bool:
    """Whether at least 80% of the words of the longer are shared with one of the others."""
    size = len(words)
    for other in others:
        if 0.8 * size <= len(other) <= size / 0.8 and len(words & other) >= 0.8 * max(size, len(other)):
            return True
    return False


def _listed(parts: Sequence[Sentence], claims: Sequence[Claim], cited: set[str]) -> bool:
    """Whether most facts cited stand in sentences that say nothing about them beyond their value."""
    meaningful = {i for i, part in enumerate(parts) if not part.kinds.isdisjoint(_MEANING)}
    used: set[str] = set()
    for claim in claims:
        told = claim.direction and not claim.fact.startswith("change_")  # a level beside another
        if claim.grounded and (claim.sentence in meaningful or told or not claim.counts):
            used.update((claim.fact, *claim.fact.split(" vs ")))
    return 6 * len(used) < len(cited)
