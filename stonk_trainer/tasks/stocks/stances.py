"""What a reasoning says its evidence speaks for: UP and DOWN in capitals, as the prompt asks for them.

"The 5-day change of +2.3% speaks for UP" gives a claim the side the writer sees it on, "I expect DOWN" is the verdict.
A side that is not the evidence's own ("it fell 6%, which speaks for UP") needs a reason in its sentence.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from stonk_trainer.tasks.stocks.claims import Claim
from stonk_trainer.tasks.stocks.words import Sentence, Text


class Stances(NamedTuple):
    """named: the sides named, of +1 (UP) and -1 (DOWN). sides: by the index of a claim, the side it is said to speak
    for. conceded: claims said to do so only perhaps ("could also speak for UP"). verdict: the side the reasoning ends
    with, 0 when it does not say. decisions: how many sentences conclude. both: they do for either. argued: the sides
    named beside a word on why. unreasoned: a claim that is put on the side opposite to its own without one. reasons:
    by sentence, whether it or the next has a word on why evidence is to be read the other way round.
    """

    named: set[int]
    sides: dict[int, int]
    conceded: set[int]
    verdict: int
    decisions: int
    both: bool
    argued: set[int]
    unreasoned: Claim | None
    reasons: list[bool]


# Before a side that is concluded for; after the first ones no doubt is left.
_DECIDES = {"expect", "conclude", "therefore", "hence", "verdict", "forecast", "predict", "choose"}
_CONCLUDES = _DECIDES | set(
    "expects expected expecting concluding choosing pick lean leans leaning settle so thus overall balance call answer"
    " likelier likely prefer guess bet conclusion side meaning decide decides decided tilts tips tip tilt outweigh"
    " outweighs weightier go going end ending come take judge".split()
)
_IS_CHOSEN = (["is", "my"], ["is", "what"], ["it", "is"], ["as", "more"])  # "UP is my pick", "DOWN it is"
_ALL_OF_IT = {"evidence", "balance", "weight"}
_AS_DOES = {("as", "does"), ("as", "do"), ("so", "does"), ("so", "do")}  # "speaks for UP, as does the close above …"
_PREVAILS = {"likelier", "likely", "wins", "prevails", "outweighs", "ahead"}
_CONCLUDES_LAST = {"say", "says", "expectation"}  # in the last sentence
_NEAR = 7  # places between a concluding word and the side
_PERHAPS = {"would", "could", "might", "may", "can", "if", "unless", "had"}
_SPEAKS = set("speak speaks spoke argument case argue argues count counts support supports weigh weighs".split())
_FAVOURS = {"favour", "favours", "favor", "favors"}  # as a conclusion only when "I" do
_SPEAKS_FOR = set("for support supports on than over instead of against outweigh outweighs".split()) | _FAVOURS
_BACK_TO = set("this that these those it both all which they such each together either".split())
_SAYS_FOR = set("belong count on for to mean means say says favour favours favor favors lean support".split())
# What stands beside a side that is named before its evidence: "in favour of UP are", "DOWN: …", "UP has …".
_OPENS = {"for", "favour", "favor", "towards", "toward", "of", "case", "side"}
_HOLDS = {"is", "has", "stands", "gets", "can", ":"}
# By which it is argued that evidence is to be read the other way round: it is too much, tiny, old, or meets a bound.
_SAYS_WHY = set(
    "far too fast quickly"
    " extreme extremes extended excessive large big wide gap distance stretch away pause pauses fade fades fading"
    " cheap attractive mean reversion snap bounce rebound rally rallies recovery relief recover recovering support"
    " floor resistance ceiling room slow slows slowed slowing shrink shrinking smaller exhaustion overdone profit"
    " profits taking correction pullback hurried speed losing lost steam tired tiring spent beyond twice quarter"
    " third half outsized sharp steep severe heavy single merely priced because reason reasons sell sellers"
    " holders buyers tiny small flat barely little unusual bargain premium cushion lot choppy shakeout steadied"
    " repair ground jumpy headway progress failed failing easing size stall stalled stalling unsustained sag drift"
    " range weak weaker shallow target magnet held mend mending settle settles pattern reversal".split()
)
_REASONS = {"turn", "turn up", "turn down", "end", "room", "back up", "back down", "not"}


def read_stances(text: Text, claims: Sequence[Claim]) -> Stances:
    """The sides of all claims. Linear in the length of the text."""
    named: set[int] = set()
    sides: dict[int, int] = {}
    conceded: set[int] = set()
    decided: set[int] = set()
    argued_sides: set[int] = set()
    verdict, decisions, unreasoned = 0, 0, None
    if "stance" not in text.roles:
        return Stances(named, sides, conceded, verdict, decisions, False, set(), unreasoned, [])
    parts = text.sentences
    argued = [not _SAYS_WHY.isdisjoint(part.words) or not _REASONS.isdisjoint(part.kinds) for part in parts]
    reasons = [here or following for here, following in zip(argued, [*argued[1:], False], strict=True)]
    inside, before = range(0), range(0)  # indices of the claims of a sentence, and of the last one that has any
    for which, part in enumerate(parts):
        first = inside.stop
        last = next((i for i in range(first, len(claims)) if claims[i].sentence != which), len(claims))
        inside = range(first, last)
        if "stance" in part.kinds:
            for sign, perhaps, covered in _marks(text, part, claims, inside, before):
                named.add(sign)
                if (argued[which] or (not inside and which and argued[which - 1])) and not perhaps:
                    argued_sides.add(sign)
                for index in covered:
                    sides.setdefault(index, sign)
                    if perhaps:
                        conceded.add(index)
                    claim = claims[index]
                    if claim.grounded and claim.direction == -sign and not (reasons[which] or reasons[claim.sentence]):
                        unreasoned = unreasoned or claim
            found, firmly = _verdict(part, which + 1 == len(parts))
            verdict = found or verdict
            decisions += found != 0
            if firmly:
                decided.add(found)
        before = inside or (range(0) if "stance" in part.kinds else before)  # what is pointed back to once is told
    return Stances(named, sides, conceded, verdict, decisions, len(decided) > 1, argued_sides, unreasoned, reasons)


def _marks(
    text: Text, part: Sentence, claims: Sequence[Claim], inside: range, before: range
) -> list[tuple[int, bool, range]]:
    """(sign, whether only perhaps, indices of the claims covered) of each UP and DOWN in a sentence.

    A mark covers the claims since the mark before it or since a "but". Without any it covers those that follow ("in
    favour of UP is …"), or, where it points back ("both speak for UP"), those of the sentence before.
    """
    words, roles, found, low = part.words, part.roles, [], 0
    places = [i for i, role in enumerate(roles) if role == "stance"]
    for place, until in zip(places, [*places[1:], len(words)], strict=True):
        clause = next((i + 1 for i in range(place - 1, low - 1, -1) if roles[i] in ("contrast", "comma")), low)
        aside = next((i for i in range(place - 1, low - 1, -1) if roles[i] == "contrast"), low)
        near = max(clause, place - 8)
        lead = words[near:place]
        covered = _claims_between(text, part, claims, inside, aside, place)
        opens = not _OPENS.isdisjoint(lead[-2:]) or not _HOLDS.isdisjoint(words[place + 1 : place + 2])
        if not covered and opens and (place <= 8 or low):
            covered = _claims_between(text, part, claims, inside, place, until)
        perhaps = not _PERHAPS.isdisjoint(lead)
        points_back = not _BACK_TO.isdisjoint(words[max(0, place - 20) : place]) and not _SAYS_FOR.isdisjoint(lead[-3:])
        if not inside and not perhaps and points_back:
            covered = before
        if "not" not in roles[near:place]:
            found.append((1 if words[place] == "up" else -1, perhaps, covered))
            if not _AS_DOES.isdisjoint(zip(words[place + 1 : place + 4], words[place + 2 : place + 5], strict=False)):
                found.append((found[-1][0], perhaps, _claims_between(text, part, claims, inside, place, until)))
        low = place + 1
    return found


def _claims_between(
    text: Text, part: Sentence, claims: Sequence[Claim], inside: range, first: int, until: int
) -> range:
    """Indices of the claims that begin from one place of a sentence to before another."""
    starts = text.starts
    end = starts[part.begin + until] if until < len(part.words) else starts[part.end - 1] + 1
    low = bisect_left(claims, starts[part.begin + first], inside.start, inside.stop, key=_start_of)
    return range(low, bisect_left(claims, end, low, inside.stop, key=_start_of))


def _start_of(claim: Claim) -> int:
    return claim.start


def _verdict(part: Sentence, is_last: bool) -> tuple[int, bool]:
    """(the side a sentence concludes for or 0, whether it says so in as many words): "so I expect UP"."""
    words, roles, sign, firmly = part.words, part.roles, 0, False
    for place in (i for i, role in enumerate(roles) if role == "stance"):
        side = 1 if words[place] == "up" else -1
        found, firm = _concludes(part, place, is_last)
        if found and (firm or not firmly):  # "I expect UP, although the day says DOWN"
            sign, firmly = side, firm
    return sign, firmly


def _concludes(part: Sentence, place: int, is_last: bool) -> tuple[bool, bool]:
    """(whether a sentence concludes for the side at a place, whether in as many words)."""
    words, roles = part.words, part.roles
    low = max(0, place - _NEAR)
    after = words[place + 1 : place + 3]
    doubted = _denies(part, low, place) or not _PERHAPS.isdisjoint(words[low:place])
    if after in _IS_CHOSEN or (not doubted and after[:1] and after[0] in _PREVAILS):
        return True, True  # "UP is what I expect"
    for i in range(place - 1, low - 1, -1):
        if roles[i] in ("number", "stance", "not") or words[i] in _PERHAPS:
            break
        mine = "i" in words[max(0, i - 3) : i]
        if words[i] in _FAVOURS and not mine:
            break
        perhaps = i > 0 and words[i - 1] in _PERHAPS and not mine  # "many would expect DOWN"
        points = words[i] in ("point", "points") and words[i + 1] == "to" and "number" not in part.kinds
        says = is_last and (points or words[i] in _CONCLUDES_LAST)
        if (words[i] in _CONCLUDES or words[i] in _FAVOURS or says) and not perhaps:
            if not _denies(part, max(0, i - 2), i):
                return True, words[i] in _DECIDES
            break
        if words[i] in _SPEAKS:
            break
    ends = is_last and not after and words[place - 1] not in _SPEAKS_FOR  # "… one more session: DOWN."
    if is_last and words[place - 2 : place] == ["is", "for"] and not _ALL_OF_IT.isdisjoint(words):
        ends = True  # "the weight of the evidence is for DOWN"
    return (ends and not doubted), False


def _denies(part: Sentence, low: int, high: int) -> bool:
    return any(part.roles[i] == "not" and part.words[i] != "rather" for i in range(low, high))
