"""How well a reasoning argues for its answer: the evidence it cites, for and against, and the faults it has.

A fault is what no honest reasoning has: a false claim, evidence against its own answer or for neither, an outlook that
contradicts it, both outlooks at once, repetition, a mere list, words that are none. Evidence is read the other way
round where the writer says that the move has gone too far or expects a turn ("oversold", "priced in", "a pullback is
likely"). Reasons are given in words, for `stonk score`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from stonk_trainer.tasks.stocks.claims import Claim
from stonk_trainer.tasks.stocks.words import Sentence, Text, slips_of

EXTREME = 0.5  # daily volatilities: a smaller move cannot be called overdone
NOTICEABLE = 0.05  # daily volatilities: after a smaller move no rebound or pullback can be expected
CONCEDED = 0.5  # weight of evidence against the answer that the writer sets aside ("although it fell …")
MOST_FACTS = 12  # whoever cites more lists the data instead of choosing from it
MOST_UNKNOWN = 0.25  # share of the words that need not be English of this kind
MOST_CONCLUSIONS = 3  # sentences that state an outlook and cite nothing
MOST_REPEATED = 0.2  # share of the sentences that may repeat another

_SIGN = {"up": 1, "positive": 1, "back up": 1, "down": -1, "negative": -1, "back down": -1, "buy": 1, "sell": -1}
_SIGN |= {"strength": 1, "weakness": -1}
_MEANING = {"above", "below", "so", "turn", "turn up", "turn down", "high", "low", "room", "than", "from", *_SIGN}
_SUBJECTS = {"price", "share", "stock", "it"}
_MOODS = {"positive", "negative"}
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
_UNDECIDED_ALONE = (
    "either way", "either direction", "coin flip", "coin toss", "toss-up", "50/50", "hard to say", "cannot tell",
    "can't tell", "no idea", "is uncertain", "are uncertain", "which way", "as likely as", "not know", "don't know",
    "cannot say", "can't say", "no opinion", "no view",
)  # fmt: skip
# Each of these phrases has one of these words, which are rare.
_UNDECIDED_WORDS = set(
    "up/down anything impossible knows both either equally direction outcomes equal coin toss 50 hard tell idea"
    " uncertain way likely know say opinion view".split()
)
_GRADER = {"grader", "graders", "grading", "graded", "rubric", "evaluator", "scorer", "verifier"}
_CONDITIONS = {"if", "scenario", "case"}
_TRENDS = {"trend", "momentum", "bias", "direction", "is", "remains"}
_OF_MORE = {"otherwise", "overall", "broader", "larger", "longer", "general", "medium", "term"}
_UNCAPITALISED = re.compile(r"[.!?] [a-z]")
_CAPITALS = re.compile(r" (?<=[a-z,] )(?:The|It|Its|This|That|A|An|But|So|Over|At|Of|To|From|With|And|On|In) ")


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
    reasoning: str, text: Text, claims: Sequence[Claim], wanted: int, volatility: float, names: frozenset[str]
) -> Weighing:
    """text: the cut of the reasoning; claims: its claims. wanted: +1 when the answer is UP, -1 for DOWN. volatility:
    daily, in percent. names: words of the prompt's texts, which are English too."""
    faults = []
    lower, parts = reasoning.lower(), text.sentences
    false = next((claim for claim in claims if claim.false), None)
    if false:
        faults.append(f'false: "{false.text}": {false.why}')
    conceded = _conceded(parts)
    outlook, decided, conclusions = _outlook_of(parts, claims)
    if not _AGAINST_WORDS.isdisjoint(text.words) and _AGAINST.search(lower):
        outlook.hints.update((1, -1))
    agree, against, flipped = _evidence(claims, conceded, outlook, wanted, volatility)
    if against > agree and wanted in outlook.hints and -wanted not in outlook.firm:
        agree, against = against, agree  # "it rose 3%; a pullback would be normal, so I expect a decline"
    mood, contradiction = _mood(parts, claims, outlook, conceded, wanted)
    if contradiction:
        faults.append(contradiction)
    # whoever concludes against most of the evidence must say so, and have some on his side
    concludes = wanted in outlook.firm or mood > 0 or _ends_on(parts) == wanted
    if against > (2 * agree if concludes else agree):
        faults.append("the evidence it cites is against its answer")
    elif not agree or (agree == against and not concludes):
        faults.append("it supports either answer")
    if wanted in outlook.overdone and not flipped and -wanted not in outlook.overdone:
        faults.append("calls a move overdone that it does not cite")
    if contradiction := _contradiction(lower, text.words, outlook, wanted, decided):
        faults.append(contradiction)
    distinct, repeats = _repetition(parts, claims)
    if repeats or conclusions > MOST_CONCLUSIONS:
        faults.append(repeats or "concludes again and again")
    if enumeration := _enumeration(parts, claims):
        faults.append(enumeration)
    faults += _faults_of_form(reasoning, lower, text, names)
    return Weighing(agree, against, distinct, faults)


def _verdict_of(words: Sequence[str]) -> int:
    """+1 or -1 when a sentence concludes with a bare direction ("Hence DOWN.", "so up from here"), else 0."""
    for i in range(len(words) - 1, max(-1, len(words) - 4), -1):
        if words[i] in _VERDICTS and (len(words) <= 4 or not _HENCE.isdisjoint(words[max(0, i - 2) : i])):
            return _VERDICTS[words[i]]
    return 0


def _spoken_of(which: int, evident: dict[int, int]) -> int:
    """Direction of the evidence that "overdone" in a sentence is said of: the last before it, else the next."""
    before = [i for i in evident if i <= which]
    return evident[max(before)] if before else evident[min(evident)] if evident else 0


def _conceded(parts: Sequence[Sentence]) -> set[int]:
    """Sentences whose evidence is set aside: with "although" in them, or "However" at the start of the next."""
    found = set()
    for which, part in enumerate(parts):
        if "contrast" in part.kinds:
            found.add(which)
            if which and part.words[0] in _CONTRAST_STARTS:
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

_OUTLOOK = {"cue", "firm", "weak", "own", "turn", "turn up", "turn down", "back up", "back down", "room", "reversal"}
# What a turn is told by, beyond the words of `words.py`, and words of which each of these has one.
_AGAINST = re.compile(
    r"against the (?:trend|crowd|move|grain|herd|tape)|other side|the opposite|last forever|cash(?:es|ing)? in"
    r"|\breversed?\b|(?:not|n't|never) (?:last|go on|continue)|gaps? .{0,24}\bclos"
    r"|(?:towards?|returns? to) (?:the|its|their) (?:[\w-]+ ){0,2}(?:average|mean)"
)
_AGAINST_WORDS = set(
    "against other opposite last cash cashes cashing reverse reversed continue on gap gaps toward towards return"
    " returns".split()
)
_OVERDONE = {"cue", "turn", "reversal"}
_VERDICTS = {"up": 1, "higher": 1, "upward": 1, "down": -1, "lower": -1, "downward": -1}
_HENCE = {"so", "hence", "therefore", "thus", "with", "say", "predict", "answer", "call", "verdict", "it's"}
_GO_ON = {"that", "continue", "persist"}  # "a risk that it falls", "the decline should continue"
_PREDICATES = {"continue", "persist", "likely", "expected", "ahead", "due", "tomorrow", "next", "poised", "expect"}


def _outlook_of(parts: Sequence[Sentence], claims: Sequence[Claim]) -> tuple[_Outlook, int, int]:
    """(outlook, character where the last firm one begins or -1, number of sentences that conclude and cite nothing)."""
    evident = {claim.sentence: claim.direction for claim in claims if claim.direction}
    claimed = {claim.sentence for claim in claims}
    outlook, decided, conclusions = _Outlook(set(), set(), set(), set(), set()), -1, 0
    for which, part in enumerate(parts):
        if {"up", "down"} <= part.kinds and part.kinds.isdisjoint(("number", "than", "above", "below")):
            # "if buyers stay it rises, and if not it falls", "arguments for a rise as well as for a fall"
            plain = which not in claimed and ("not" not in part.kinds or "neither" in part.words)
            if plain or not _CONDITIONS.isdisjoint(part.words):
                outlook.weak.update((1, -1))
        if not part.kinds.isdisjoint(_OUTLOOK):
            spoken_of = 0 if part.kinds.isdisjoint(_OVERDONE) else _spoken_of(which, evident)
            if "cue" in part.kinds and "not" not in part.kinds:
                outlook.hints.add(-spoken_of)
            if _read_outlook(part, -spoken_of, outlook):
                decided = part.start
                conclusions += which not in claimed
        if sign := _verdict_of(part.words):
            outlook.firm.add(sign)
    return outlook, decided, conclusions


def _read_outlook(part: Sentence, turn: int, outlook: _Outlook) -> bool:
    """Add what a sentence says will come; whether it says so firmly. turn: against the moves last spoken of, as
    "overdone" means."""
    words, clause, speaks, firm = part.words, [], False, False
    for place, role in enumerate(part.roles):
        if not role:
            continue
        if (role not in _CLAUSE_END and role != "number") or words[place] in _GO_ON:
            clause.append(place)
            speaks = speaks or role in _OUTLOOK
            continue
        if speaks and not (role == "number" and part.roles[clause[-1]] in _SIGN):  # "fell 2.3%" is no outlook
            firm = _read_clause(part, clause, turn, outlook) or firm
        clause, speaks = [], False
    return bool(speaks and _read_clause(part, clause, turn, outlook)) or firm


def _read_clause(part: Sentence, clause: list[int], turn: int, outlook: _Outlook) -> bool:
    kinds = [part.roles[place] for place in clause]
    words = [part.words[place] for place in clause]
    nots = [i for i, kind in enumerate(kinds) if kind == "not" and not (i and kinds[i - 1] in ("than", "above"))]
    sign = -1 if len(nots) % 2 else 1  # "more likely than not" denies nothing
    marks = [i for i, kind in enumerate(kinds) if kind in ("firm", "weak", "own")]
    if marks and "than" in kinds[marks[0] :]:  # "a pullback is more likely than a further rise"
        kinds = kinds[: kinds.index("than", marks[0])]
        marks = [i for i in marks if i < len(kinds)]
    if sign > 0 and "weak" not in kinds:
        outlook.overdone.update(direction for kind, direction in (("turn up", 1), ("turn down", -1)) if kind in kinds)
        if "turn" in kinds and turn:
            outlook.overdone.add(turn)
        if "reversal" in kinds and turn and "weak" not in kinds and (marks or "room" in kinds):
            outlook.turns.add(turn)
    if sign > 0:
        for kind, word in zip(kinds, words, strict=False):
            if kind in ("back up", "back down") and not word.endswith("ed"):
                outlook.hints.add(_SIGN[kind])
    moves = [i for i, kind in enumerate(kinds) if kind in _SIGN]
    if not moves:
        return False
    if "room" in kinds and sign > 0:  # "room to fall back"
        outlook.turns.update(_SIGN[kinds[i]] for i in moves)
    if marks and moves and "or" in words[marks[0] : moves[-1]]:  # "will it rise or will it fall"
        signs = {_SIGN[kinds[i]] for i in moves if i > marks[0]}
        if len(signs) > 1 and kinds[moves[-1]] not in ("back up", "back down"):
            outlook.weak.update(signs)
            return False
    decisive = marks and kinds[marks[-1]] == "firm" and [i for i in moves if i > marks[-1]]
    after = decisive or [i for i in moves if marks and i > marks[0]]
    if not marks or not (after or not _PREDICATES.isdisjoint(words[marks[-1] :])):
        return False
    chosen = after or moves
    signs = {_SIGN[kinds[i]] for i in chosen}
    if len(signs) > 1 and kinds[chosen[0]] in ("back up", "back down"):
        signs = {_SIGN[kinds[chosen[0]]]}  # "give back some of the gain"
    if len(signs) > 1:
        # "will rise or fall", "a chance of a rise and a chance of a fall"
        if sum(kinds[i] != "firm" for i in marks) > 1 or "or" in words[chosen[0] : chosen[-1]]:
            outlook.weak.update(signs)
        return False
    direction = signs.pop() * sign * (-1 if _is_ended(kinds, clause, chosen) else 1)
    firm = "weak" not in kinds and "firm" in kinds
    (outlook.firm if firm else outlook.weak).add(direction)
    if firm and any(kinds[i] in ("back up", "back down") and _SIGN[kinds[i]] == direction for i in chosen):
        outlook.turns.add(direction)  # "a pullback is likely"
    return firm


def _is_ended(kinds: list[str], places: list[int], moves: list[int]) -> bool:
    """ "stop falling", "the decline to fade", not "a pause or a pullback"."""
    for at, kind in enumerate(kinds):
        if kind != "end":
            continue
        for move in moves:
            close = at > move or places[move] - places[at] <= 3
            if close and "and" not in kinds[min(at, move) + 1 : max(at, move)]:
                return True
    return False


def _contradiction(lower: str, words: Sequence[str], outlook: _Outlook, wanted: int, decided: int) -> str | None:
    """Why an outlook cannot stand with the answer, else None. lower: the reasoning in lower case; words: its words.

    A firm outlook ("will fall") must agree with the answer. A weak one ("could fall") names a risk and is allowed,
    unless both directions are stated, and only weakly. decided: where the last sentence with a firm outlook starts;
    an "either way" before it is no hedge.
    """
    if -wanted in outlook.firm:
        return "states an outlook against its own answer"
    last = max(0, lower.find(".", decided)) if decided >= 0 else 0
    undecided = not _UNDECIDED_WORDS.isdisjoint(words) and (
        any(phrase in lower for phrase in _UNDECIDED)
        or any(lower.find(phrase, last) >= 0 for phrase in _UNDECIDED_ALONE)
    )
    if undecided or (wanted not in outlook.firm and len(outlook.weak) > 1):
        return "hedges on both directions"
    return None


def _mood(
    parts: Sequence[Sentence], claims: Sequence[Claim], outlook: _Outlook, conceded: set[int], wanted: int
) -> tuple[int, str | None]:
    """(how often words like "bullish" are said for the answer, less those against it; why they are a fault or None).

    In a sentence that cites evidence they must be said of evidence of that side.
    """
    evidence: dict[int, set[int]] = {}
    for claim in claims:
        if claim.direction:
            evidence.setdefault(claim.sentence, set()).add(claim.direction)
    mood, moods = 0, set()
    for which, part in enumerate(parts):
        told = part.kinds & _MOODS or which not in evidence or not {"up", "down", "or"}.isdisjoint(part.words)
        if not told or part.kinds.isdisjoint(_SIGN):
            continue
        said = [(word, role) for word, role in zip(part.words, part.roles, strict=True) if role]
        for position, (word, role) in enumerate(said):
            if role not in _SIGN:
                continue
            before = said[position - 1] if position else ("", "")
            trend = before[0] in _TRENDS and word in ("up", "down")
            if word[-1] == "s" and part.words[part.words.index(word) - 1] in _SUBJECTS and which not in evidence:
                trend = True  # "the price falls"
            if role not in ("positive", "negative") and not trend:
                if position > 1 and before[0] == "or" and _SIGN.get(said[position - 2][1]) == -_SIGN[role]:
                    return mood, "hedges on both directions"
                continue
            near = {role for _, role in said[max(0, position - 4) : position + 3]}
            if not near.isdisjoint(("not", "end", "weak", "firm")):
                continue
            sign = _SIGN[role]
            if which in conceded or outlook.turns or outlook.overdone:
                continue
            if evidence.get(which) == {-sign} and _OF_MORE.isdisjoint(part.words):
                return mood, "reads evidence the wrong way round"
            if which not in evidence:
                mood += sign * wanted * (not trend)
                moods.add(sign)
    if len(moods) > 1:
        return mood, "says one thing and its opposite"
    return mood, "speaks against its own answer" if mood < 0 else None


def _ends_on(parts: Sequence[Sentence]) -> int:
    """+1 or -1 when the last sentence speaks of one direction only, else 0."""
    if not parts or not parts[-1].kinds.isdisjoint(("end", "not", "contrast")):
        return 0
    signs = {_SIGN[role] for role in parts[-1].kinds if role in _SIGN}
    return signs.pop() if len(signs) == 1 else 0


# ---------------------------------------------------------------------------------------------------- form


def _repetition(parts: Sequence[Sentence], claims: Sequence[Claim]) -> tuple[float, str | None]:
    """(share of the sentences that repeat no other, why this is a fault or None).

    A sentence repeats another when it has nearly the same words and cites nothing new. Citing again what was cited is
    allowed now and then; it is a fault when as many sentences do it as cite something.
    """
    facts: dict[int, list[str]] = {}
    for claim in claims:
        if claim.counts and (claim.grounded or claim.false):
            facts.setdefault(claim.sentence, []).append(claim.fact or claim.text)
    seen: set[str] = set()
    recent: list[frozenset[str]] = []
    exact: set[frozenset[str]] = set()
    total = repeated = novel = again = 0
    insists = False
    for which, part in enumerate(parts):
        words = frozenset(part.words)
        if len(words) < 2:
            continue
        total += 1
        cited = facts.get(which, ())
        is_new = not seen.issuperset(cited)
        if cited:
            insists = insists or (len(cited) > 2 and any(cited.count(fact) > 2 for fact in cited))
            novel += is_new
            again += not is_new
            seen.update(cited)
        if not is_new and (words in exact or _is_alike(words, recent)):
            repeated += 1
        elif words not in exact:
            exact.add(words)
            recent = [*recent[-9:], words]
    if not total:
        return 1.0, None
    if repeated > MOST_REPEATED * total or again >= max(2, novel) or insists:
        return 1 - repeated / total, "repeats itself"
    return 1 - repeated / total, None


def _is_alike(words: frozenset[str], others: Sequence[frozenset[str]]) -> bool:
    """Whether at least 80% of the words of the longer are shared with one of the others."""
    size = len(words)
    for other in others:
        if 0.8 * size <= len(other) <= size / 0.8 and len(words & other) >= 0.8 * max(size, len(other)):
            return True
    return False


def _enumeration(parts: Sequence[Sentence], claims: Sequence[Claim]) -> str | None:
    """Why a reasoning that cites facts only lists them: too many, or most in sentences that say nothing about them
    beyond their value; else None."""
    cited = {claim.fact for claim in claims if claim.grounded and claim.counts}
    if len(cited) > MOST_FACTS:
        return f"lists {len(cited)} facts instead of choosing some"
    meaningful = {i for i, part in enumerate(parts) if not part.kinds.isdisjoint(_MEANING)}
    meaningful |= {i - 1 for i in meaningful}  # "These two are both positive."
    used: set[str] = set()
    for claim in claims:
        told = claim.direction and not claim.fact.startswith("change_")  # a level beside another
        if claim.grounded and (told or claim.sentence in meaningful or not claim.counts):
            used.add(claim.fact)
    return "lists facts without a word on what they mean" if 6 * len(used) < len(cited) else None


def _faults_of_form(reasoning: str, lower: str, text: Text, names: frozenset[str]) -> list[str]:
    """What is wrong with the words, whatever they say. lower: the reasoning in lower case."""
    faults = []
    words = len(text.words)
    slips = slips_of(text.words) + len(_CAPITALS.findall(reasoning))
    if slips and slips + len(_UNCAPITALISED.findall(reasoning)) > max(1, 0.015 * words):
        faults.append("its words make no sentences")
    if text.roles.count(None) > MOST_UNKNOWN * words:
        unknown = sum(role is None and word not in names for word, role in zip(text.words, text.roles, strict=True))
        if unknown > MOST_UNKNOWN * words:
            faults.append("most of its words are no words")
    if not reasoning.isascii() and _DISGUISED.search(reasoning):
        faults.append("letters or digits in disguise")
    if ("prediction" in lower or "answer" in lower) and _ANSWER.search(lower):
        faults.append("the answer stands inside the reasoning")
    if "UP" in reasoning and _MENU.search(reasoning):
        faults.append("echoes the menu of answers")
    if not _GRADER.isdisjoint(text.words) or "full marks" in lower:
        faults.append("speaks to its grader")
    return faults
