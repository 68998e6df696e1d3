"""How well a reasoning argues for its answer: the evidence it cites, for and against, and the faults it has.

A fault is what no honest reasoning has: a false claim, evidence against its own answer or for neither, an outlook that
contradicts it, both outlooks at once, repetition, a mere list, words that are none. Evidence is read the other way
round where the writer says that the move has gone too far or expects a turn ("oversold", "priced in", "a pullback is
likely"). Reasons are given in words, for `stonk score`.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from stonk_trainer.tasks.stocks.book import Book
from stonk_trainer.tasks.stocks.claims import Claim
from stonk_trainer.tasks.stocks.stances import Stances, read_stances
from stonk_trainer.tasks.stocks.words import Sentence, Text, is_known, joins, slips_of

CONCEDED = 0.5  # weight of evidence against the answer that the writer sets aside ("although it fell …")
MOST_FACTS = 12  # whoever cites more lists the data instead of choosing from it
MOST_UNKNOWN = 0.25  # share of the words that need not be English of this kind
MOST_CONCLUSIONS = 3  # sentences that state an outlook and cite nothing
MOST_IDLE = 3  # sentences that say nothing about the data
MOST_REPEATED = 0.2  # share of the sentences that may repeat another

_SIGN: dict[str | None, int] = {"up": 1, "positive": 1, "back up": 1, "down": -1, "negative": -1, "back down": -1}
_SIGN |= {"buy": 1, "sell": -1, "strength": 1, "weakness": -1}
_MEANING = {"above", "below", "so", "turn", "turn up", "turn down", "high", "low", "room", "than", "from", *_SIGN}
_MEANING |= {"stance"}
_SUBJECTS = {"price", "share", "stock", "it"}
_MOODS = {"positive", "negative"}
_READS = _MOODS | {"strength", "weakness"}
_CLAUSE_END = {"comma", "so", "as", "contrast"}
_CONTRAST_STARTS = {"however", "but", "still", "yet", "nevertheless", "nonetheless", "although", "though", "despite"}
# Letters and digits that pass for others: zero-width, full-width, Cyrillic, mathematical, digits of other scripts.
_DISGUISED = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\uff01-\uff5e\u0400-\u052f\U0001d400-\U0001d7ff]"
    "|[a-zA-Z][\u0370-\u03ff]|[\u0370-\u03ff][a-zA-Z]|(?![0-9])\\d"
)
_ANSWER = re.compile(r"(?:prediction|answer)\W{0,4}:")
_MENU = re.compile(r"\bUP[ ,/|]{1,3}(?:or )?DOWN\b|\bDOWN[ ,/|]{1,3}(?:or )?UP\b")
_UNDECIDED = (
    "up/down", "impossible to", "who knows", "both directions", "either is possible", "both are possible",
    "equally likely", "both ways", "any direction", "both outcomes", "outcomes are possible", "equal chance",
    "just as likely", "the opposite is", "at random", "no bearing", "any bearing", "flipped a coin",
    "not use", "picked the answer", "answer was",
)  # fmt: skip
_UNDECIDED_ALONE = (
    "anything can happen", "anything is possible", "either way", "either direction", "coin flip", "coin toss",
    "toss-up", "50/50", "hard to say", "cannot tell", "can't tell",
    "no idea", "is uncertain", "are uncertain", "which way", "as likely as", "not know", "don't know",
    "cannot say", "can't say", "no opinion", "no view", "as easily", "by either", "just as well",
)  # fmt: skip
# Each of these phrases has one of these words, which are rare.
_UNDECIDED_WORDS = set(
    "up/down anything impossible knows both either equally direction outcomes equal coin toss 50 hard tell idea"
    " uncertain way likely know say opinion view easily opposite random bearing coin well use picked answer".split()
)
# What takes a conclusion in as many words back.
_DISOWNS = (
    "expect the opposite", "take no side", "nobody can tell",
    "tossed a coin", "flipped a coin", "coin showed", "at random", "no bearing", "any bearing",
    "picked the answer", "answer was", "not use the", "not used", "other way round", "leave it open",
    "leave open", "neither up nor", "neither down nor", "could be up and", "could be down and",
    "impossible to say", "impossible to tell", "who knows", "just as well",
)  # fmt: skip
_ASTRAY = {"letters", "lucky", "neighbour", "characters", "moon", "horoscope", "zodiac", "dice"}
_OF_A_SIZE = {"double", "single", "triple", "two", "three"}  # "no double-digit move"
_TAG = re.compile(r"</?[a-z]+>")
_GRADER = {"label", "labels", "grader", "graders", "grading", "graded", "rubric", "evaluator", "scorer", "verifier"}
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
    """Directions (+1, -1) that the writer expects firmly, names as possible, and expects a move the other way to turn
    to ("oversold", "a pullback is likely", "overdone"). decided: character where the last firm sentence begins, -1 for
    none. conclusions: how many sentences conclude and cite nothing. hedged: both directions are called possible after.
    """

    firm: set[int]
    weak: set[int]
    turns: set[int]
    decided: int = -1
    conclusions: int = 0
    hedged: bool = False


def weigh(reasoning: str, text: Text, claims: Sequence[Claim], wanted: int, book: Book) -> Weighing:
    """text: the cut of the reasoning; claims: its claims. wanted: +1 when the answer is UP, -1 for DOWN."""
    faults = []
    lower, parts = reasoning.lower(), text.sentences
    false = next((claim for claim in claims if claim.false), None)
    if false:
        faults.append(f'false: "{false.text}": {false.why}')
    conceded = _conceded(parts)
    stances = read_stances(text, claims)
    if stances.unreasoned:
        faults.append(f'does not say why "{stances.unreasoned.text}" should speak for the other side')
    evidence = _evidence(claims, conceded, wanted, stances)
    if stances.verdict:
        agree, against, found = _stated(lower, text, claims, stances, wanted, *evidence)
    else:
        agree, against, found = _implied(lower, text, claims, stances, conceded, book, wanted, *evidence)
    faults += found
    distinct, repeats = _repetition(parts, claims)
    if repeats:
        faults.append(repeats)
    if enumeration := _enumeration(parts, claims):
        faults.append(enumeration)
    if len(parts) > MOST_IDLE and _idle(parts, claims) > max(MOST_IDLE, len(parts) / 2):
        faults.append("most of its sentences say nothing about the data")
    astray = _ASTRAY.difference(book.words).intersection(text.words) or any(
        other[:5] == "digit" and one not in _OF_A_SIZE for one, other in pairwise(text.words)
    )
    if astray or any(_is_non_sequitur(part, book.company) for part in parts):
        faults.append("concludes from what is not about the data")
    if book.company and None in text.roles and (company := _other_company(reasoning, text, book)):
        faults.append(f"speaks of {company}, which the prompt does not name")
    faults += _faults_of_form(reasoning, lower, text, book.words)
    return Weighing(agree, against, distinct, faults)


_Argument = tuple[float, float, list[str]]  # weight of the evidence for and against the answer, faults


def _stated(
    lower: str, text: Text, claims: Sequence[Claim], stances: Stances, wanted: int, agree: float, against: float
) -> _Argument:
    """The argument of a reasoning that ends with UP or DOWN in as many words, as the prompt asks."""
    faults = []
    if stances.both or stances.verdict == -wanted:
        faults.append("concludes for both sides" if stances.both else "concludes against its own answer")
    if stances.decisions > MOST_CONCLUSIONS:
        faults.append("concludes again and again")
    outlook = _outlook_of([part for part in text.sentences if "stance" not in part.kinds], ())
    if not agree:
        turned = wanted in stances.argued | outlook.turns or _turns_round(text, claims, stances, wanted)
        agree = CONCEDED * turned
    sides = {side for index, side in stances.sides.items() if claims[index].direction}
    if not agree:
        faults.append("cites nothing that speaks for its answer")
    elif against > agree and sides == {wanted}:  # it names the few things that speak for it, as the exception
        faults.append("most of the evidence it cites is against its answer")
    elif not any(stances.reasons) and against > agree * CONCEDED:  # what is set aside weighs half
        faults.append("does not say why what speaks for its answer should count for more")
    if outlook.firm == {-wanted}:
        faults.append("states an outlook against its own answer")
    if any(phrase in lower for phrase in _DISOWNS):
        faults.append("takes its conclusion back")
    if lower.count("expect") > 2 and any(sum(w[:6] == "expect" for w in part.words) > 2 for part in text.sentences):
        faults.append("argues in a circle")
    if len(stances.named) > 1 and any(_is_on_both_sides(part) for part in text.sentences):
        faults.append("puts the same thing on both sides")
    return agree, against, faults


def _implied(
    lower: str, text: Text, claims: Sequence[Claim], stances: Stances, conceded: set[int], book: Book,
    wanted: int, agree: float, against: float,
) -> _Argument:  # fmt: skip
    """The argument of a reasoning in the writer's own words: what it expects is read from outlooks and moods."""
    parts, faults = text.sentences, []
    outlook = _outlook_of(parts, claims)
    if len(stances.named) > 1:
        faults.append("names both sides and does not end with the one it expects")
    if (back := _back_to_average(parts, book)) and not outlook.firm - {back}:
        outlook.firm.add(back)  # "I expect a move back toward its average"
        outlook.turns.add(back)
    turned = (-wanted if agree > against else wanted) in outlook.turns
    if not turned and against > agree and outlook.firm == {wanted}:
        turned = _argues_reversal(parts, claims, conceded, wanted)
    if turned and not stances.sides:
        agree, against = against, agree  # "it rose 3%; such moves rarely last, so I expect a decline"
    mood, contradiction = _mood(parts, claims, outlook, conceded, wanted)
    if contradiction:
        faults.append(contradiction)
    # whoever concludes against most of the evidence must say so, and have some on his side
    concludes = wanted in outlook.firm | outlook.turns or mood > 0
    if against > (2 * agree if concludes else agree):
        faults.append("the evidence it cites is against its answer")
    elif not agree or (agree == against and not concludes):
        faults.append("it supports either answer")
    if contradiction := _contradiction(lower, text.words, outlook, wanted):
        faults.append(contradiction)
    elif outlook.hedged:
        faults.append("hedges on both directions")
    if outlook.conclusions > MOST_CONCLUSIONS:
        faults.append("concludes again and again")
    return agree, against, faults


def _verdict_of(words: Sequence[str]) -> int:
    """+1 or -1 when a sentence concludes with a bare direction ("Hence DOWN.", "so up from here"), else 0."""
    for i in range(len(words) - 1, max(-1, len(words) - 4), -1):
        if (
            words[i] in _VERDICTS
            and words[i - 1] != "for"
            and (len(words) <= 4 or not _HENCE.isdisjoint(words[max(0, i - 2) : i]))
        ):
            return _VERDICTS[words[i]]
    return 0


_GIVES_A_REASON = {"since", "because", "as"}
_OF_PRICES = set("average close open change volatility price volume financial span streak".split()) | _MEANING
_OF_PRICES -= {"so", "than", "from", "stance"}
_ASIDE = {"so", "hence", "therefore", "thus"}


def _is_non_sequitur(part: Sentence, company: Sequence[str]) -> bool:
    """ "It rained this morning, so my answer is DOWN": no word before the conclusion is one that prices are spoken of
    with, and some are none that is known here."""
    if "number" in part.kinds:
        return False
    if part.words[0] in _GIVES_A_REASON and "stance" in part.kinds and "comma" in part.roles:
        # "Since the name of the weekday ends in a y, I expect UP."
        end = len(part.roles) - 1 - part.roles[::-1].index("comma")
        premise = part.roles[1:end]
        of_the_company = not set(company).isdisjoint(part.words[1:end])
        return None in premise and not of_the_company and "not" not in premise and _OF_PRICES.isdisjoint(premise)
    if _ASIDE.isdisjoint(part.words):
        return False
    end = next(i for i, word in enumerate(part.words) if word in _ASIDE)
    if not {"this", "that", "it"}.isdisjoint(part.words[max(1, end - 2) : end]):
        return False  # "Wall Street rewards this, so"
    before = part.roles[:end]
    content = [word for word, role in zip(part.words, before, strict=False) if role == "" and not joins(word)]
    plain = all(role in (None, "", "comma", "day", "today", "span", "at", "of") for role in before)
    concludes = {"firm", *_SIGN}.intersection(part.roles[end:])
    return bool(before.count(None) and plain and not content and concludes)


_OF_SUBSTANCE = {*_MEANING, "firm", "weak", "own", "end", "average", "close", "change", "volatility"}


def _idle(parts: Sequence[Sentence], claims: Sequence[Claim]) -> int:
    """How many sentences cite nothing, and neither name a direction nor what prices are spoken of with."""
    claimed = {claim.sentence for claim in claims}
    return sum(
        len(part.words) > 4 and which not in claimed and _OF_SUBSTANCE.isdisjoint(part.kinds)
        for which, part in enumerate(parts)
    )


def _is_on_both_sides(part: Sentence) -> bool:
    """ "speaks for UP, speaks for DOWN"."""
    places = [i for i, role in enumerate(part.roles) if role == "stance"]
    return any(
        part.words[one] != part.words[other]
        and other - one <= 6
        and "for" in part.words[one + 1 : other]
        and not {"number", "average", "close", "contrast"}.intersection(part.roles[one + 1 : other])
        for one, other in pairwise(places)
    )


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


def _evidence(claims: Sequence[Claim], conceded: set[int], wanted: int, stances: Stances) -> tuple[float, float]:
    """(for, against). Each thing that evidence is about counts once, on the side it is said to speak for."""
    sides: dict[str | None, float] = {}
    for index, claim in enumerate(claims):
        if claim.direction and claim.grounded:
            side = stances.sides.get(index, claim.direction)
            said = stances.verdict == wanted and index in stances.sides  # "speaks for DOWN, but I expect UP"
            aside = said or claim.sentence in conceded or index in stances.conceded
            turned = side != claim.direction  # "it fell 6%, a steep drop that speaks for UP"
            weight = CONCEDED if turned or (side == -wanted and aside) else 1.0
            if claim.about not in sides or abs(sides[claim.about]) > weight:
                sides[claim.about] = side * weight
    agree = sum(side * wanted for side in sides.values() if side * wanted > 0)
    against = -sum(side * wanted for side in sides.values() if side * wanted < 0)
    return agree, against


def _turns_round(text: Text, claims: Sequence[Claim], stances: Stances, wanted: int) -> bool:
    """Whether evidence against the answer is turned round after a "but", with a reason: "The 5-day change of +6% speaks
    for UP. But the close is 7% over its average, a wide gap. I expect DOWN."."""
    parts = text.sentences
    turns = (i for i, part in enumerate(parts) if "contrast" in part.kinds or part.words[0] in _CONTRAST_STARTS)
    turn = next(turns, len(parts))
    return any(
        claim.grounded and claim.direction == -wanted and claim.sentence >= turn and stances.reasons[claim.sentence]
        for index, claim in enumerate(claims)
        if index not in stances.sides
    )


# Closed classes of words by which a reversal is argued: what is usual, what is too much, those who trade.
_ARGUES = set(
    "often usually usual normally typically tend tends rarely seldom eventually sooner always never such kind sort size"
    " too far fast much quickly extreme extremes expensive pricey attractive value large big lot proportion back"
    " buyers sellers holders traders investors people bulls bears crowd money profits".split()
)
_GOES_ON = set("continue continues continued continuing persist persists further momentum trend trends extend".split())


def _argues_reversal(parts: Sequence[Sentence], claims: Sequence[Claim], conceded: set[int], wanted: int) -> bool:
    """Whether a conclusion opposite to the evidence is argued for: a sentence says why such moves end, and none reads
    the evidence as it stands ("a bearish sign", "the trend should continue")."""
    argued, claimed = False, {claim.sentence for claim in claims}
    for which, part in enumerate(parts):
        signs = {_SIGN[kind] for kind in part.kinds & _READS}
        if -wanted in signs and which not in conceded and wanted not in signs:
            return False
        if _GOES_ON.isdisjoint(part.words) or "contrast" in part.kinds:
            argued = argued or not _ARGUES.isdisjoint(part.words) or ("not" in part.kinds and which not in claimed)
    return argued


# ---------------------------------------------------------------------------------------------------- outlook

_OUTLOOK = {"firm", "weak", "own", "turn", "turn up", "turn down", "back up", "back down", "room"}
_TURNS = {"turn up": (1,), "turn down": (-1,), "turn": (1, -1)}
_VERDICTS = {"up": 1, "higher": 1, "upward": 1, "down": -1, "lower": -1, "downward": -1}
_HENCE = set("so hence therefore thus with say predict answer call verdict it's but choose pick take slightly".split())
_GO_ON = {"that", "continue", "persist"}  # "a risk that it falls", "the decline should continue"
_PERFECT = {"has", "have", "had"}  # "I think it has fallen too fast" tells of the past
_NO_MOVE_AFTER_LIKELY = {"noise", "temporary", "just", "only", "overdone", "a", "an", "the", "over"}
_CAUSES = {"after", "following"}
_PREDICATES = set(
    "continue persist likely expected ahead due tomorrow next poised expect bet call verdict guess".split()
)


def _outlook_of(parts: Sequence[Sentence], claims: Sequence[Claim]) -> _Outlook:
    claimed = {claim.sentence for claim in claims}
    outlook, decided, conclusions, hedged = _Outlook(set(), set(), set()), -1, 0, False
    for which, part in enumerate(parts):
        before = len(outlook.weak)
        if {"up", "down"} <= part.kinds and part.kinds.isdisjoint(("number", "than", "above", "below")):
            # "if buyers stay it rises, and if not it falls", "arguments for a rise as well as for a fall"
            plain = which not in claimed and ("not" not in part.kinds or "neither" in part.words)
            if plain or not _CONDITIONS.isdisjoint(part.words):
                outlook.weak.update((1, -1))
        if not part.kinds.isdisjoint(_OUTLOOK):
            if _read_outlook(part, outlook):
                decided, hedged = part.start, False
                conclusions += which not in claimed
            elif len(outlook.firm) == 1 and which not in claimed and _takes_back(part, *outlook.firm):
                hedged = True  # "then again it may well go up"
            elif len(outlook.weak) > max(1, before) and "weak" in part.kinds and which not in claimed:
                hedged = True  # "it may go up, but it may also go down"
        if sign := _verdict_of(part.words):
            outlook.firm.add(sign)
            decided, hedged = part.start, False
    return outlook._replace(decided=decided, conclusions=conclusions, hedged=hedged)


_AGAIN = {"then", "well", "equally", "also", "though"}


def _takes_back(part: Sentence, sign: int) -> bool:
    """Whether a sentence calls the direction opposite to the conclusion as good ("then again it may well go up")."""
    other = _Outlook(set(), set(), set())
    _read_outlook(part, other)
    return other.weak == {-sign} and not _AGAIN.isdisjoint(part.words)


def _back_to_average(parts: Sequence[Sentence], book: Book) -> int:
    """Which way the price has to go that is expected to move toward its average; 0 when no such move is expected."""
    averages = [value for _, value in sorted(book.averages.items())]
    for part in parts:
        if "firm" not in part.kinds or not averages or "not" in part.kinds:
            continue
        words = part.words[part.roles.index("firm") :]
        toward = next((i for i, word in enumerate(words) if word in ("toward", "towards")), None)
        if toward is None or not {"up", "down"}.isdisjoint(part.roles[-len(words) :]):
            continue
        if not {"average", "averages", "mean"}.isdisjoint(words[toward : toward + 6]):
            sides = (
                {(value > book.closes[0]) - (value < book.closes[0]) for value in averages}
                if 0 in book.closes
                else set()
            )
            if len(sides) == 1:
                return sides.pop()
    return 0


def _read_outlook(part: Sentence, outlook: _Outlook) -> bool:
    """Add what a sentence says will come; whether it says so firmly."""
    clause: list[int] = []
    words, speaks, caused, firm = part.words, False, False, False
    for place, role in enumerate(part.roles):
        if not role:
            continue
        if words[place] in _CAUSES and clause:
            caused = True  # "a pullback after such a bounce is likely": the bounce is what has been
            continue
        if (role not in _CLAUSE_END and role != "number") or words[place] in _GO_ON:
            caused = caused and role not in ("firm", "weak", "own")
            if not (caused and role in _SIGN):
                clause.append(place)
                speaks = speaks or role in _OUTLOOK
            continue
        if speaks and not (role == "number" and part.roles[clause[-1]] in _SIGN):  # "fell 2.3%" is no outlook
            firm = _read_clause(part, clause, outlook) or firm
        clause, speaks, caused = [], False, False
    return bool(speaks and _read_clause(part, clause, outlook)) or firm


def _read_clause(part: Sentence, clause: list[int], outlook: _Outlook) -> bool:
    kinds = [part.roles[place] for place in clause]
    words = [part.words[place] for place in clause]
    for i, word in enumerate(words):  # "the loss is likely noise" forecasts nothing
        if word == "likely" and clause[i] + 1 < len(part.words) and part.words[clause[i] + 1] in _NO_MOVE_AFTER_LIKELY:
            kinds[i] = ""
    marks = [i for i, kind in enumerate(kinds) if kind in ("firm", "weak", "own")]
    begin = max((i for i in range(marks[0]) if words[i] == "and"), default=0) if marks else 0
    # "more likely than not" denies nothing, nor does "I see no weakness and expect a rise" deny the rise
    nots = [i for i, kind in enumerate(kinds) if kind == "not" and i >= begin and kinds[i - 1] not in ("than", "above")]
    sign = -1 if len(nots) % 2 else 1
    if marks and "than" in kinds[marks[0] :]:  # "a pullback is more likely than a further rise"
        kinds = kinds[: kinds.index("than", marks[0])]
        marks = [i for i in marks if i < len(kinds)]
    if sign > 0 and "weak" not in kinds:
        for i, kind in enumerate(kinds):
            if kind in _TURNS and "just" not in part.words[max(0, clause[i] - 2) : clause[i]]:  # "just a breather"
                outlook.turns.update(_TURNS[kind])
    moves = [i for i, kind in enumerate(kinds) if kind in _SIGN and not (i and words[i - 1] in _PERFECT)]
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
        if kinds[chosen[-1]] == "back down" and "given" in part.words:
            signs = {-1}  # "some of the bounce to be given back"
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


def _is_ended(kinds: list[str | None], places: list[int], moves: list[int]) -> bool:
    """ "stop falling", "the decline to fade", not "a pause or a pullback"."""
    for at, kind in enumerate(kinds):
        if kind != "end":
            continue
        for move in moves:
            close = at > move or places[move] - places[at] <= 3
            if close and "and" not in kinds[min(at, move) + 1 : max(at, move)]:
                return True
    return False


def _contradiction(lower: str, words: Sequence[str], outlook: _Outlook, wanted: int) -> str | None:
    """Why an outlook cannot stand with the answer, else None. lower: the reasoning in lower case; words: its words.

    A firm outlook ("will fall") must agree with the answer. A weak one ("could fall") names a risk and is allowed,
    unless both directions are stated, and only weakly. An "either way" before the last firm outlook is no hedge.
    """
    if -wanted in outlook.firm:
        return "states an outlook against its own answer"
    last = max(0, lower.find(".", outlook.decided)) if outlook.decided >= 0 else 0
    undecided = not _UNDECIDED_WORDS.isdisjoint(words) and (
        any(phrase in lower for phrase in _UNDECIDED)
        or any(_stands(phrase, lower, last) for phrase in _UNDECIDED_ALONE)
    )
    if undecided or (wanted not in outlook.firm and len(outlook.weak) > 1):
        return "hedges on both directions"
    return None


_BUT = re.compile(
    r"[^.;]*\b(?:but|yet|though|still|however)\b[^.;]*\b(?:up|down|higher|lower|negative|positive|bullish|bearish|rise|fall)\b"
)


def _stands(phrase: str, lower: str, since: int) -> bool:
    """Whether an undecided phrase stands, rather than "a coin flip, but slightly down"."""
    at = lower.find(phrase, since)
    return at >= 0 and not _BUT.match(lower, at)


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
            after = said[position + 1][1] if position + 1 < len(said) else ""
            trend = before[0] in _TRENDS and word in ("up", "down") and after not in ("at", "number")
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
            if which in conceded or outlook.turns:
                continue
            if evidence.get(which) == {-sign} and _OF_MORE.isdisjoint(part.words):
                return mood, "reads evidence the wrong way round"
            if which not in evidence:
                undisputed = trend and not part.kinds & _MOODS and not outlook.firm
                if undisputed and sign == -wanted:
                    return mood, "speaks against its own answer"  # "the trend is up and I'd stay with it"
                mood += sign * wanted * (not trend)
                moods.add(sign)
    if len(moods) > 1:
        return mood, "says one thing and its opposite"
    return mood, "speaks against its own answer" if mood < 0 else None


# ---------------------------------------------------------------------------------------------------- form


def _repetition(parts: Sequence[Sentence], claims: Sequence[Claim]) -> tuple[float, str | None]:
    """(share of the sentences that repeat no other, why this is a fault or None).

    A sentence repeats another when it has nearly the same words and cites nothing new. Citing again what was cited is
    allowed now and then; it is a fault when as many sentences do it as cite something.
    """
    facts: dict[int, list[str]] = {}
    for claim in claims:
        if claim.counts and (claim.grounded or claim.false) and not (claim.fact or "").startswith("headline"):
            facts.setdefault(claim.sentence, []).append(claim.fact or claim.text)
    seen: set[str] = set()
    recent: list[frozenset[str]] = []
    exact: set[frozenset[str]] = set()
    total = repeated = novel = again = alone = 0
    insists = False
    for which, part in enumerate(parts):
        words = frozenset(part.words)
        if len(words) < 2:
            alone += "stance" in part.kinds
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
    if repeated > MOST_REPEATED * total or again >= max(2, novel) or insists or alone > 2:
        return 1 - repeated / total, "repeats itself"
    return 1 - repeated / total, None


def _is_alike(words: frozenset[str], others: Sequence[frozenset[str]]) -> bool:
    """Whether at least 80% of the words of the longer are shared with one of the others."""
    size = len(words)
    for other in others:
        if 0.8 * size <= len(other) <= size / 0.8 and len(words & other) >= 0.8 * max(size, len(other)):
            return True
    return False


def _is_listing(part: Sentence) -> bool:
    """ "the close is …, the 1-day change is …, the 5-day change is …, the 20-day average is …"."""
    if part.roles.count("number") < 4 or not {"above", "below"}.isdisjoint(part.roles):
        return False
    return _states(part) >= 4


def _states(part: Sentence) -> int:
    """How many numbers a sentence states as "… is N"."""
    told = zip(part.words, part.roles[1:], strict=False)
    return sum(role == "number" and word in ("is", "was", "=", ":") for word, role in told)


def _enumeration(parts: Sequence[Sentence], claims: Sequence[Claim]) -> str | None:
    """Why a reasoning that cites facts only lists them: too many, or most in sentences that say nothing about them
    beyond their value; else None."""
    mute = [part for part in parts if "stance" not in part.kinds]  # they do not say what a number speaks for
    numeric = sum("number" in part.kinds for part in parts)
    plain = [part for part in mute if part.roles.count("number") == 1 and _states(part) == 1]
    bare = len(plain) > 3 and (2 * len(plain) > len(parts) or len(plain) == numeric)
    if bare or any(_is_listing(part) for part in parts if part.roles.count("stance") < 2):
        return "lists facts without a word on what they mean"
    cited = {claim.fact for claim in claims if claim.grounded and claim.counts}
    if len(cited) > MOST_FACTS:
        return f"lists {len(cited)} facts instead of choosing some"
    meaningful = {i for i, part in enumerate(parts) if not part.kinds.isdisjoint(_MEANING)}
    meaningful |= {i - 1 for i in meaningful}  # "These two are both positive."
    used: set[str] = set()
    for claim in claims:
        if claim.fact is None:
            continue
        told = claim.direction and not claim.fact.startswith("change_")  # a level beside another
        if claim.grounded and (told or claim.sentence in meaningful or not claim.counts):
            used.add(claim.fact)
    return "lists facts without a word on what they mean" if 6 * len(used) < len(cited) else None


# Names that are no company's.
_NO_COMPANY = set(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
    " september october november december christmas thanksgiving easter wall street us usa american europe"
    " european china chinese asia asian japan japanese nyse sma ema rsi macd covid".split()
)
_ACTS = set("seems seemed took takes shows keeps kept remains gave came broke ran has got lost".split())
_SUBJECT_OF = {"up", "down", "back up", "back down", "close", "price", "to", "at", "look"}
_NAMED_AFTER = set("of in for around about with at like than unlike behind expect to".split())
_ABSTRACT = ("ity", "ness", "ism", "tion", "sion", "ment", "ance", "ence", "cy", "ing", "ship", "s", "ly")


def _other_company(reasoning: str, text: Text, book: Book) -> str | None:
    """A name that the prompt does not have, spoken of as a company: "Apple rose", "sentiment around Apple"."""
    words, roles, starts = text.words, text.roles, text.starts
    begins = {part.begin for part in text.sentences}
    for place in [place for place, role in enumerate(roles) if role is None]:
        word = words[place].removesuffix("'s")
        if not reasoning[starts[place]].isupper() or word in book.words or word in _NO_COMPANY or is_known(word):
            continue
        if any(known[:2] == word[:2] or _is_short_for(word, known) for known in book.company):
            continue  # "Coke" for Coca-Cola, "BofA" for Bank of America
        following = place + 1
        while following < min(len(words), place + 4) and roles[following] in (None, "of"):
            following += 1  # "Bank of America"
        first = place
        while first > place - 3 and first not in begins and reasoning[starts[first - 1]].isupper():
            first -= 1  # "Range Resources"
        role = roles[following] if following < len(words) else "end of sentence"
        if words[following - 1].endswith("'s") or words[following : following + 1] in (["shares"], ["stock"]):
            return word.capitalize()
        if first in begins and words[first] not in _NAMED_AFTER:
            acts = role in _SUBJECT_OF or words[following : following + 1] and words[following] in _ACTS
            named = acts and (following > place + 1 or not word.endswith(_ABSTRACT))
        else:
            named = role in _SUBJECT_OF or words[first - 1] in _NAMED_AFTER or words[first] in _NAMED_AFTER
        if named:
            return word.capitalize()
    return None


def _is_short_for(word: str, name: str) -> bool:
    """Whether the letters of a word stand in a name in their order, from its first on."""
    letters = iter(name)
    return word[0] == name[:1] and all(letter in letters for letter in word if letter.isalpha())


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
    if "<" in lower and _TAG.search(lower):
        faults.append("holds tags")
    if not _GRADER.isdisjoint(text.words) or "full marks" in lower:
        faults.append("speaks to its grader")
    return faults
