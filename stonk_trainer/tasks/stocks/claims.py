"""The fact ledger: which statements in a reasoning are claims about the data, and which of them the data bear out.

A claim is a number with its unit inside a sentence, or a comparison in words ("above its 20-day average"). Reading
starts from the number: it is looked up in the book of everything that the prompt allows to be stated, and the words
around it then have to name one of the things it equals, or at least not another. The verdict is one of three:

    grounded   the words name a thing that the number equals to the precision written, with its unit, sign and side
    false      nothing shown has that number, or the words name something else: it is invented, or misplaced
    unclear    the number is one that was shown, but the words do not say of what; it neither pays nor costs much

What this simplifies: English only; a relation does not cross sentences. Time is linear: from each number and
comparison the words around are looked at over a bounded distance.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from stonk_trainer.tasks.stocks.book import (
    Book,
    Entry,
    Quantity,
    close_name,
    equal_to,
    mean_of,
    moved_from_to,
    pair_name,
    quantity_of,
    sign_of,
)
from stonk_trainer.tasks.stocks.words import COUNTS, Sentence, Text, count_at, is_joined


class Claim(NamedTuple):
    """One statement about the data; `text` is `reasoning[start:end]`.

    fact: name of the fact or relation it states ("close", "close vs sma_20"), None when not grounded.
    false: the data contradict it. Neither grounded nor false: unclear.
    why: the verdict in words.
    direction: the evidence it gives: +1 bullish, -1 bearish, 0 none (levels, volume, volatility, not grounded).
    about: what the evidence is about; two claims about the same are one piece of evidence.
    counts: whether it cites a number; a comparison in words is evidence, but no citation.
    sentence: which sentence of the reasoning it stands in.
    listed: the fact that a label outside any sentence gives it ("Close: $175.53"), which alone is no claim.
    """

    text: str
    start: int
    end: int
    fact: str | None
    grounded: bool
    false: bool
    why: str
    direction: int
    about: str | None
    counts: bool
    sentence: int
    listed: str | None = None


# ---------------------------------------------------------------------------------------------------- the words around

_SIGNS: dict[str | None, int] = {"up": 1, "down": -1, "back up": 1, "back down": -1, "positive": 1, "negative": -1}
_NAMES = {"close", "open", "average", "volatility", "volume", "financial", "price", "change", "other"}
_LEVELS = _NAMES - {"price", "change"}
_OTHERS = {"volume", "volatility", "financial", "other"}  # a change beside them is theirs, not the price's
_CLAUSE = {"so", "as", "contrast", "comma"}
_BREAK = _CLAUSE | {"and", "to", "from", "than", "colon"}
_RELATIVE = {"which", "when", "where"}  # what they begin is still about the word before
_LINKS = {"", None, "comma", "and", "bracket", "at", "contrast", "as"}  # between the numbers of a list
_GLUE = _LINKS | {"of", "to", "from", "colon", "last", "span", "ago", "today", "high", "low", "above", "below", *_SIGNS}
_ABOUT = {"in", "of", "for"}
_OF = ("of", "at", "colon", "bracket")
_DETERMINERS = {"the", "a", "its", "their", "new"}
_COPULA = {"was", "is", "were", "being", "as", "marks", "marked", "remains"}
_APART_FROM = {"comma", "contrast", "so", "above", "below", "from", "number"}
_HEDGES = {"above": 1, "over": 1, "than": 1, "nearly": -1, "almost": -1, "under": -1, "below": -1}
# Words of an outlook that also stand beside facts: "I'm told", "next to a 2.3% gain".
_NO_FORECAST = set("call verdict answer think believe say due ahead am i'm next lean leaning leans bet going".split())
_REACH = 40  # places looked at on either side of a number

# What a role says about a number near it; the other roles only join.
_SAYS: dict[str | None, str] = dict.fromkeys(_NAMES, "name")
_SAYS |= dict.fromkeys(_SIGNS, "move")
_SAYS |= dict.fromkeys(_CLAUSE, "clause")
_SAYS |= dict.fromkeys(("span", "ago", "today"), "when")
_SAYS |= dict.fromkeys(("own", "firm", "weak"), "own")
_SAYS |= {"colon": "colon", "high": "extreme", "low": "extreme", "above": "side", "below": "side", "not": "not"}


class _Number:
    """One number and what the words around it say it is of. Places are those of the text, -1 for none.

    at: its place. quantity: what it amounts to. before: role of the word before it.
    name: role of the nearest word that names something ("" for none), `named` its place, `near` whether only glue
    stands between. rank: the number's rank in a list of numbers that share their words.
    span, ago: the days the words name; today: whether they say "today".
    move: sign of the direction word (0 for none), `move_at` its place. side: place of an "above" or "below" beside the
    number. extreme: "high", "low" or "". own: the writer's outlook is spoken of. denied: "not" is said.
    """

    # What no word says stays as it is here.
    name = extreme = before = ""
    named = move_at = side = -1
    near = True
    today = own = denied = False
    rank = move = 0
    span: tuple[int, ...] = ()
    ago: tuple[int, ...] = ()

    def __init__(self, at: int, quantity: Quantity):
        self.at, self.quantity = at, quantity

    def moved_within(self, reach: int) -> bool:
        """Whether a direction word stands within so many places."""
        return self.move != 0 and abs(self.at - self.move_at) <= reach

    def own_days(self, days: tuple[int, ...]) -> tuple[int, ...]:
        """Of days named together for several numbers ("over 5 and 20 days") the one for this number."""
        return days[self.rank : self.rank + 1] if self.rank < len(days) > 1 else days


def _look(text: Text, at: int, low: int, high: int, last: _Number | None) -> _Number:
    """The number at place `at`, read by the words from `low` and up to `high`. last: the number before it."""
    words, roles, says = text.words, text.roles, _SAYS.get
    number = _Number(at, quantity_of(words[at]))
    if at > low:
        number.before = roles[at - 1] or ""
    listed = last is not None and _LINKS.issuperset(roles[low:at])
    if last and listed:  # "changes of 2.3% and 4.1%": read by the words before the first
        _inherit(number, last, words)
    same_clause = before_colon = True
    when = -1
    for place in range(at - 1, at - 1 if listed else max(low, at - _REACH) - 1, -1):
        what = says(roles[place])
        if what is None:
            continue
        if what == "clause":
            goes_on = words[place] == "that" or words[place] in _RELATIVE or words[place + 1] in _RELATIVE
            same_clause = same_clause and goes_on
        elif what == "colon":
            before_colon = False  # "what matters for tomorrow: 2.3% in a week" forecasts nothing
        elif what == "name":
            if number.named < 0 and (same_clause or not number.move):
                number.named = place
                number.near = at - place <= 7 and _GLUE.issuperset(roles[place + 1 : at])
        elif what == "move":
            # "a negative 5-day change of" tells of the number, "after falling, its change is" does not
            adjective = roles[place] in ("positive", "negative") and number.named - place <= 4
            if not number.move and (number.named < 0 or roles[number.named] == "price" or adjective):
                number.move_at, number.move = place, _SIGNS[roles[place]]
        elif what == "when":
            if when < 0 and (same_clause or last is None):
                when = place
        elif what == "own":
            mine = same_clause or (roles[place] == "own" and number.named < 0 and not number.move)
            number.own = number.own or (mine and before_colon and words[place] not in _NO_FORECAST)
        elif what == "not":
            bounds = words[place + 1] in _MORE_OR_LESS  # "no more than"
            number.denied = number.denied or (same_clause and before_colon and not bounds)
        elif what == "extreme":
            reached = words[place - 1] in _DETERMINERS and _APART_FROM.isdisjoint(roles[place:at])
            if at - place <= 5 or (reached and at - place <= 10):
                number.extreme = number.extreme or roles[place] or ""
    when_after = -1
    for place in range(at + 1, min(high, at + 13)):
        what = says(roles[place])
        if what is None:
            continue
        if what == "when":
            when_after = place if when_after < 0 and number.side < 0 else when_after
        elif what == "side":
            apposition = _APPOSED.issuperset(roles[at + 1 : place])  # "$11.90, about 10%, beneath"
            far = 6 if words[place] == "than" or apposition else 3  # "is a far bigger move than"
            number.side = place if number.side < 0 and place - at <= far else number.side
        elif what == "extreme":
            copula = place - 1
            while words[copula] in _DETERMINERS or words[copula] in ("also", "clearly", "both", "closing", "recent"):
                copula -= 1
            if words[copula] in _COPULA and copula <= at + 4:
                number.extreme = roles[place] or ""  # "$150.00 three days ago was the low"
        elif what == "move":
            adverb = words[place] in ("up", "down") or roles[place] in ("positive", "negative")
            expected = roles[place] in ("back up", "back down")  # "+18.73% invites profit-taking"
            stated = roles[place] in ("positive", "negative") and words[at + 1] in ("is", "are", "was", "were")
            if place - at <= (1 if expected else 5 if stated else 2 if adverb else 3):  # "a 2.3% daily drop"
                number.move_at, number.move = place, _SIGNS[roles[place]]
        elif what == "name":
            _name_after(text, number, place, high, when_after < 0)
    # "2.3% over 5 days" rather than the days before, but "the 5-day change of 2.3% on the last day"
    bound = when >= 0 and (at - when <= 2 or (number.named > when and at - when <= 5))
    when = when_after if when_after >= 0 and not bound else when
    if when >= 0:
        number.today = roles[when] == "today"
        number.span = text.days[when] if roles[when] == "span" else ()
        number.ago = text.days[when] if roles[when] == "ago" else ()
    if words[at + 1 : at + 2] == ["now"]:
        number.named, number.span, number.ago = -1, (), (0,)
    elif number.named >= 0 and words[number.named] == "averages" and words[at - 1] == ":":
        number.named = -1  # a label: "Price vs. averages: $23.37 is under …"
    elif roles[at + 2 : at + 3] == ["number"] and roles[at + 1] in ("above", "below", "than"):
        number.named = -1  # "price > average ($175.53 > $171.80)"
    if number.named >= 0:
        number.name = roles[number.named] or ""
    return number


def _inherit(number: _Number, last: _Number, words: Sequence[str]) -> None:
    """In a list a number is read by the words of the number before it."""
    if "(" in words[last.at : number.at]:
        number.rank = 1  # "around $255 to $257 ($255.69, $255.44)": a list of its own
        return
    number.named, number.move, number.move_at, number.rank = (last.named, last.move, last.move_at, last.rank + 1)
    number.near = last.near and last.named >= 0 and words[last.named][-1] == "s"  # "averages of … and …"
    number.span = last.span if len(last.span) > 1 else ()
    number.ago = last.ago if len(last.ago) > 1 else ()
    number.before = number.before if number.before in ("to", "from", "at") else last.before


def _name_after(text: Text, number: _Number, place: int, high: int, undated: bool) -> None:
    """ "the $171.80 20-day average", "$171.80 (20-day average)", "a 2.3% rise in volume"; but not "$175.53, on volume
    of 53.2M", nor "the average of $171.80 the close"."""
    gap = place - number.at
    taken = number.near and number.named >= number.at - 7 and number.before in ("of", "at", "colon")
    reach = 1 if text.roles[place] == "change" else 2
    if place in text.days:
        reach = 6 if text.words[number.at + 1] == "for" else 4  # "$171.80 for the 20-day average"
    beside = gap <= reach
    following = [role for role in text.roles[place + 1 : place + 4] if role not in _OF]
    of_next = following[:1] == ["number"] and place + 1 < high
    if beside and not taken and not of_next:
        number.named, number.near = place, True
    elif number.named < 0 and undated and gap <= 6 and not _ABOUT.isdisjoint(text.words[number.at + 1 : place]):
        number.named, number.near = place, False


def _break(roles: Sequence[str | None], low: int, high: int) -> int:
    """Where the words after a number cease to be about it: the first break from `low` on, else `high`."""
    for place in range(low, min(high, low + _REACH)):
        if roles[place] in _BREAK:
            return place
    return high


# ---------------------------------------------------------------------------------------------------- verdicts


class _Verdict(NamedTuple):
    fact: str | None
    why: str
    false: bool = False
    direction: int = 0
    about: str | None = None  # what the evidence is about, where it is not the fact
    listed: str | None = None


def _untrue(why: str) -> _Verdict:
    return _Verdict(None, why, True)


# First and last place of a statement, the verdict, and whether it is a number.
_Statement = tuple[int, int, _Verdict, bool]

_SPELLED_UNITS = {"percent", "per", "value", "half", "twice", "double", "third", "quarter", "fifth", "tenth"}
_LEADS_A_FRACTION = {"by", "lost", "has", "gained", "shed"}
_APPOSED = {"comma", "number", "at", "bracket"}
_BEFORE_TODAY = {"before", "prior", "earlier", "previous"}
_MORE_OR_LESS = {"more", "less", "higher", "lower", "longer", "better", "worse"}
_APART_BY = {"under", "below", "above", "over", "lower", "higher", "beneath"}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_TENS |= {"hundred": 100, "thousand": 1000}
_OF_ITS = {"of", "its", "the", "day", "moving", "simple", "5", "10", "20", "50"}
_RATIOS = {"half": 0.5, "twice": 2.0, "double": 2.0}
_FRACTIONS = {"half": 50.0, "third": 100 / 3, "quarter": 25.0, "fifth": 20.0, "tenth": 10.0}
_STATING = {"streak", "event", "volume", "number", "above", "below", "span", "record", "high", "low", "superlative"}


def claims_of(reasoning: str, text: Text, book: Book) -> list[Claim]:
    """Every statement about the data in a reasoning, which `text` is the cut of, in order, with its verdict.

    Numbers that are no claim about the data are left out: years, bare counts ("3 shares"), N in "20-day", and the
    writer's own forecast ("63% confidence"). A fact claimed twice appears twice; whoever counts must count names.
    """
    claims: list[Claim] = []
    words, starts, numbers = text.words, text.starts, text.numbers
    first = 0
    for which, sentence in enumerate(text.sentences):
        until = first
        while until < len(numbers) and numbers[until] < sentence.end:
            until += 1
        if until > first or not sentence.kinds.isdisjoint(_STATING) or "percent" in sentence.words:
            for low, high, verdict, counts in _Reader(text, sentence, numbers[first:until], book).stated():
                text_of = reasoning[starts[low] : starts[high] + len(words[high])]
                claims.append(
                    Claim(
                        text=text_of,
                        start=starts[low],
                        end=starts[low] + len(text_of),
                        fact=verdict.fact,
                        grounded=verdict.fact is not None,
                        false=verdict.false,
                        why=verdict.why,
                        direction=verdict.direction,
                        about=verdict.about or verdict.fact,
                        counts=counts,
                        sentence=which,
                        listed=verdict.listed,
                    )
                )
        first = until
    if any(claim.listed for claim in claims):
        _admit_listed(claims)
    if claims and not any(claim.direction for claim in claims):
        _juxtapose(claims, book)
    return claims


def _admit_listed(claims: list[Claim]) -> None:
    """ "Close: $175.53 … The close is above its average": what a sentence speaks of, it may have listed before."""
    spoken_of = {name for claim in claims if claim.fact is not None for name in claim.fact.split(" vs ")}
    for i, claim in enumerate(claims):
        if claim.listed in spoken_of:
            why = f"equals {claim.listed}, spoken of later"
            claims[i] = claim._replace(fact=claim.listed, grounded=True, why=why)


def _juxtapose(claims: list[Claim], book: Book) -> None:
    """Where nothing else is evidence, levels stated beside the close are: "it was $168.61 and closed at $175.53"."""
    if any(claim.fact == "close" for claim in claims):
        for i, claim in enumerate(claims):
            if claim.fact is None or " vs " in claim.fact:
                continue
            if claim.fact.startswith(("close_", "sma_")):
                sign = sign_of(book.closes[0] - book.values[claim.fact])
                claims[i] = claim._replace(direction=sign, about=f"close vs {claim.fact}")


GROUNDED, UNCLEAR, CONTRADICTED = 2, 1, 0
_PRICE_WORDS = set("share shares stock stocks price prices close closed closes closing average".split())
_APART = set(
    "cushion room margin stretch distance gap difference spread deviation premium discount away from separates".split()
)
_PLACES = {"at", "to", "from", "of", "above", "below", "than"}
_NEWS = {"headline", "headlines"}  # "a headline says it will cut its dividend by 15%" is no forecast of the writer's
_NEAR = {"near", "around", "about", "roughly", "toward", "towards"}
_ROUGHLY = {"around", "about", "roughly", "approximately", "some"}
_STANDS = set("is was trades trading traded sits stands remains sitting standing".split())
_NOW = set("now currently current stands stand sits trades trading ended ends finished session latest".split())
_RANGE = {"range", "ranges", "ranged", "ranging", "band"}
_MOVED = {"moved", "moves", "traded", "swung", "fluctuated"}
_RANGES = _RANGE | {"between"}
_PAIRS = (["to", "number"], ["and", "number"])
_MEANS = {"average", "averages", "averaged", "averaging", "mean"}
_TYPICAL = {"normal", "normally", "typical", "typically", "usual", "usually"}
_EVERY = {"each", "every", "all"}
_BROKEN = {"after", "until", "before", "following", "snapped", "snaps", "broke", "breaks",
           "broken", "interrupted", "yesterday", "had"}  # fmt: skip
_SINCE = {"since", "from", "peak", "high", "low", "top", "bottom", "total", "together"}
_PACE = {"per", "averaging", "averaged", "each"}
_PRONOUNS = {"it", "that", "this", "them", "both"}
_FIRST_PERSON = {"i", "my", "we", "our"}
_COMING = {"tomorrow", "next"}
_FORMERLY = {"before", "previously", "earlier", "then"}
_HAPPENED = set(
    "gained climbed jumped advanced increased rallied surged soared spiked rose dropped declined slid slipped decreased"
    " tumbled plunged dipped slumped crashed sank fell lost".split()
)
_BEFORE_THEN = {"before", "until", "had"}
_PATH = _BEFORE_THEN | {"once", "most", "nearly", "part", "except", "besides", "half", "follows"}
_SOME = {"those", "these", "them", "run", "two", "three", "four"}
_BEFORE_NOW = {"before", "until", "previously", "once", "formerly", "if"}  # what was so, or would be
_UNDONE = {"erased", "erasing", "erases", "wiped", "undone", "undid", "reversed", "earlier"}
_NOT_QUITE = {"near", "nearly", "practically", "almost", "short", "within", "toward", "towards", "against", "off"}
_MARKS = {"ceiling", "peak", "high", "top", "floor", "low", "bottom", "mark", "level", "zone", "area"}
_AN = {"a", "an", "earlier", "previous", "prior", "former", "another", "old", "older"}
_PRESENT = {"today", "now", "latest", "currently"}
_LISTED = {"closes", "list", "series"}
# Words by which a path is told, so that a number beside "closed" need not be today's.
_NARRATES = set(
    "then twice running after since followed until when once later had before again earlier instead".split()
)
_APART_FROM_THAT = {"beyond", "besides", "except", "than"}  # "positive on every horizon beyond a day"
_FIRST_LONG_SPAN = 61  # days; no prompt shows more
_EXTREMES = {"high", "low", "superlative"}
_ENDS_CLAUSE = {"and", "comma", "so", "contrast"}
_ENDS_MOVE = {"number", "as", *_ENDS_CLAUSE}
_NO_PLAIN_MOVE = {"firm", "weak", "own", "not", "end", *_LEVELS} - {"close"}
_NO_REFERENCE = {"next", "other", "another", "longer", "shorter", "long", "short", "every"}
_NOTHING = {"nothing", "no", "none", "neither", "nor"}
_COMPARED = {"compared", "relative", "versus", "vs", "against"}
_SUBJECTS = {"it", "share", "shares", "stock"}


class _Reader:
    """Reads one sentence: first its numbers, from left to right, then what it says in words."""

    def __init__(self, text: Text, sentence: Sentence, numbers: list[int], book: Book):
        self.text, self.book, self.numbers = text, book, numbers
        self.begin, self.end, _, words, roles, self.kinds = sentence
        self.words = set(words)
        self.levels: dict[int, Entry] = {}  # by place: the price, average or other level a number was read as
        self.changes: list[Entry] = []  # stated so far
        self.lags: list[int] = []  # of the closes stated so far
        self.used: set[int] = set()  # places of the words that say what a number is
        # "analysts expect 12%" and "historically a 73% chance" are claims, if no prompt shows them
        self.theirs = "others" in self.kinds
        count = len(roles) - roles.count("comma") - roles.count("bracket")
        self.is_prose = count >= max(3, 2.25 * len(numbers)) and is_joined(words, len(numbers) / 2)

    def stated(self) -> list[_Statement]:
        """What the sentence states, in order."""
        found: list[_Statement] = []
        words, roles, kinds = self.text.words, self.text.roles, self.kinds
        low, last = self.begin, None
        for i, at in enumerate(self.numbers):
            # Words between two numbers belong to the first up to a comma, "and" or "to"; without one, to both.
            following = self.numbers[i + 1] if i + 1 < len(self.numbers) else self.end
            high = _break(roles, at + 1, following)
            last = _look(self.text, at, low, high, last)
            if verdict := self._number(last):
                found.append((at, at, verdict, True))
            while high < following and (
                not _RELATIVE.isdisjoint(words[high : high + 2])  # "its averages, which stand at …"
                or (high + 1 == following and roles[high - 1] in _LEVELS)  # "its average, $171.80"
            ):
                high = _break(roles, high + 2, following)
            low = high if high < following else at + 1
        if self.is_prose:
            if "above" in kinds or "below" in kinds:
                found += self._comparisons()
            if not kinds.isdisjoint(("span", "streak")) and not kinds.isdisjoint(_SIGNS):
                found += self._moves()
            if "unchanged" in self.words:
                found += self._unchanged()
            if "record" in kinds or not kinds.isdisjoint(_EXTREMES):
                found += self._superlatives()
        if not self.words.isdisjoint(_SPELLED_UNITS):
            found += self._spelled()
        if "dollars" in self.words and not _TENS.keys().isdisjoint(self.words):
            found += self._in_words()
        if "equals" in self.words:
            found += self._equals()
        if ("event" in kinds or "volume" in kinds) and kinds.isdisjoint(("not", "weak")) and "if" not in self.words:
            found += self._events()
        if len(found) > 1:
            found.sort(key=lambda statement: statement[0])
        return found

    # ------------------------------------------------------------------------------------------------ one number

    def _number(self, number: _Number) -> _Verdict | None:
        """The verdict on one number; None when it speaks of the writer's own forecast."""
        word = self.text.words[number.at]
        if not self.theirs and self.words.isdisjoint(_NEWS) and self._is_forecast(number):
            return None
        bound = _HEDGES.get(self.text.words[number.at - 1], 0)
        best, reason = -1, "nothing shown has this number"
        if self._is_near(number):
            best, reason = UNCLEAR, "near a price that is shown"
        chosen: Entry | None = None
        for entries in (equal_to(number.quantity, self.book, bound), None):
            for entry in self._derived(number) if entries is None and best < GROUNDED else entries or ():
                rank, why = self._judge(entry, number)
                shown = entry.fact in self.book.facts
                if rank > best or (rank == best and shown and chosen and chosen.fact not in self.book.facts):
                    best, chosen, reason = rank, entry, why
        if number.denied and self.is_prose and best >= 0:
            return _Verdict(None, "the words deny it", "true" in self.words)
        if chosen and best == GROUNDED and not self.theirs:
            verdict = self._told(chosen, number)
        elif (headline := self._headline(word)) is not None:
            verdict = _Verdict(headline, f"quotes {headline}")
        else:
            verdict = _Verdict(None, reason, best != UNCLEAR or self.theirs)
        if not self.is_prose:
            return _Verdict(None, "a list of numbers, not a sentence", verdict.false, listed=verdict.fact)
        return verdict

    def _is_near(self, number: _Number) -> bool:
        """ "a floor near $12.90": a round price within half a percent of one that is shown."""
        value, unit = number.quantity.value, number.quantity.unit
        if unit != "usd" or self.text.words[number.at - 1] not in _NEAR:
            return False
        shown = (*self.book.closes.values(), *self.book.averages.values())
        return value >= 1 and round(value * 10) == value * 10 and any(abs(price / value - 1) < 0.005 for price in shown)

    def _is_forecast(self, number: _Number) -> bool:
        after = number.at + 1
        exact = number.quantity.unit == "percent" and number.quantity.decimals > 1  # nobody foresees hundredths
        happened = number.move and number.before == "to" and self.text.words[number.move_at] in _HAPPENED
        if exact or happened:
            return False
        if "target" in self.kinds and not _FIRST_PERSON.isdisjoint(self.words):
            return True
        if "stance" in self.text.roles[max(0, number.at - 2) : number.at]:
            return True  # "I lean UP (60%)"
        if "own" in self.text.roles[after : after + 2] or not _COMING.isdisjoint(self.text.words[after : after + 2]):
            return True
        shown = number.named >= number.at - 4 and number.name in ("open", "average", "volatility")
        return number.own and number.before != "from" and not shown

    def _derived(self, number: _Number) -> list[Entry]:
        """What a number may equal beyond the table: a change between two closes stated before it, an average of the
        length that the words name, a share of one financial item in another."""
        book, (value, tolerance, decimals, unit, _) = self.book, number.quantity
        found = []
        if len(self.lags) > 1:
            new = self.lags[-1]
            for old in {self.lags[-2], self.lags[0]} - {new}:
                moved = moved_from_to(book.closes[old], book.closes[new], "change", pair_name(new, old), old - new, new)
                found += [entry for of_unit, entry in moved if of_unit == unit]
        if unit == "percent" and self.text.words[number.at + 1 : number.at + 2] == ["of"]:
            found += self._shares_of_a_move()
        if moved := self._told_next(number.at):
            found += [entry for of_unit, entry in moved if of_unit == unit]
        if unit in ("usd", "") and not _MEANS.isdisjoint(self.words):
            spans = {n for place in range(number.at - _REACH, number.at + 13) for n in self.text.days.get(place, ())}
            for n in spans | {len(set(self.lags[-20:]))}:
                if n > 1 and n not in book.averages and (mean := mean_of(book, n)):
                    found.append(Entry(mean, 1, "mean", f"sma_{n}", n, 2))
        if self.text.items and unit in ("percent", "ratio"):
            items = [self.text.items[place] for place in range(self.begin, self.end) if place in self.text.items]
            for one, other in pairwise(items):
                if book.facts[one].unit == book.facts[other].unit and book.values[other] and one != other:
                    share = book.values[one] / book.values[other] * (100 if unit == "percent" else 1)
                    found.append(Entry(abs(share), sign_of(share), "share", f"{one} vs {other}", 0, 2))
        return [e for e in found if decimals <= e.decimals and abs(e.value - value) <= 1.001 * tolerance]

    def _shares_of_a_move(self) -> list[Entry]:
        """ "the last session made 40% of the week's gain"."""
        last = self.book.values.get("change_1d", 0.0)
        wholes = [(name, value) for name, value in self.book.values.items() if name.startswith("change_") and value]
        return [
            Entry(100 * last / whole, 1, "share", f"change_1d vs {name}", 1, 0)
            for name, whole in wholes
            if name != "change_1d" and 0 < last / whole < 1
        ]

    def _headline(self, number: str) -> str | None:
        """The headline that has the number, in a sentence that shares at least two of its words."""
        digits = re.search(r"\d[\d.]*", number)
        for name, words in self.book.headlines:
            if digits and digits.group() in words and len(words.intersection(self.words)) >= 2:
                return name
        return None

    def _judge(self, entry: Entry, number: _Number) -> tuple[int, str]:
        """How the words around a number fit a thing it equals: (GROUNDED, UNCLEAR or CONTRADICTED, why not)."""
        kind = entry.kind
        if kind == "change":
            return self._judge_change(entry, number)
        if kind == "versus":
            return self._judge_versus(entry, number)
        if kind == "close":
            return self._judge_close(entry, number)
        if kind == "pace":
            told = self._per_day() and number.quantity.sign != -entry.sign
            return (GROUNDED if told else CONTRADICTED), "it is no average per day"
        if kind == "multiple":
            return (GROUNDED if "volatility" in self.kinds else UNCLEAR), "of what is not said"
        if kind == "mean":
            lengths = self.text.days.get(number.named, ()) if number.name == "average" and number.near else ()
            return (CONTRADICTED if lengths and entry.days not in lengths else GROUNDED), f"it is {entry.fact}"
        return (GROUNDED, "") if kind == "share" else self._judge_level(entry, number)

    def _per_day(self) -> bool:
        """Whether the sentence speaks of an average per day: "on average", "an average daily gain", "1% per day"."""
        if not _PACE.isdisjoint(self.words) or "on average" in " ".join(self.text.words[self.begin : self.end]):
            return True
        words, roles = self.text.words, self.text.roles
        return any(
            words[at] in ("average", "mean") and (words[at + 1] == "daily" or roles[at + 1] in ("change", *_SIGNS))
            for at in range(self.begin, self.end - 1)
        )

    def _judge_level(self, entry: Entry, number: _Number) -> tuple[int, str]:
        """ "its 20-day average of $171.80", "volume of 53.2M", "a daily volatility of 1.5%", "it opened at $174.00"."""
        kind, name, days = entry.kind, number.name, self.text.days.get(number.named, ())
        why = f"{entry.fact} is meant, not the {name}" if name else "the words name no fact"
        is_loss = entry.sign < 0 and ("loss" in self.words or "down" in self.kinds)
        if (number.quantity.sign or 1) != (entry.sign or 1) and not is_loss:
            return CONTRADICTED, f"{entry.fact} has the opposite sign"
        if kind in ("average", "open") and self.text.words[number.at - 1] == "by":
            return CONTRADICTED, "a level is no difference"
        if name == kind:
            if kind == "financial":
                return (GROUNDED if self.text.items[number.named] == entry.fact else CONTRADICTED), why
            days = number.own_days(days if number.near or not number.span else number.span)
            return (CONTRADICTED if days and entry.days not in days else GROUNDED), f"it is {entry.fact}"
        if kind == "average":
            for place in range(max(self.begin, number.named - 6), number.named if name == "close" else 0):
                if self.text.roles[place] == "average" and entry.days in self.text.days.get(place, ()):
                    return GROUNDED, ""  # "the mean of its last twenty closes ($171.80)"
            compared = number.before in ("above", "below") or (number.before == "than" and "average" in self.kinds)
            if entry.days in number.span or compared:
                return GROUNDED, ""
            if number.before == "to" and self.lags:
                return CONTRADICTED, why  # "moved from $175.53 to $171.80"
            if (name in ("close", "price") and number.near) or (number.before == "at" and self._is_now(number.at)):
                return CONTRADICTED, why
            return (CONTRADICTED if number.near and name in _LEVELS else UNCLEAR), why
        if kind == "volatility" and name == "change":  # "a typical day moves it by 1.5%" does not say which way
            if not number.move and not number.quantity.sign and not _TYPICAL.isdisjoint(self.words):
                return GROUNDED, ""
            return (CONTRADICTED if number.move or number.quantity.sign else UNCLEAR), why
        return (CONTRADICTED if name and number.near else UNCLEAR), why

    def _judge_close(self, entry: Entry, number: _Number) -> tuple[int, str]:
        """ "closed at $175.53", "two days ago it was $172.40", "rose from $171.80 to $175.53", "a low of $168.61"."""
        words, closes, lag, name, before = (self.text.words, self.book.closes, entry.days, number.name, number.before)
        differs = words[number.at - 1] == "by" and words[number.at - 2] != "followed"
        if differs or self.text.roles[number.at - 1] in ("up", "down"):
            return CONTRADICTED, "a level is no difference"  # "dropped $175.53"
        if number.side == number.at + 1 and words[number.at - 1] in _STANDS:
            return CONTRADICTED, "a level is no difference"  # "it trades $175.53 above its average"
        if number.extreme and "each" not in words[self.begin : number.at] and self._at_extreme(number):
            pick = max if number.extreme == "high" else min
            since = lag + 1 if "recent" in words[self.begin : self.end] else 0
            holds = any(
                closes[lag] == pick(part)
                for within in {60, since, *number.span}
                if (part := [close for days, close in closes.items() if days < within])
            ) or closes[lag] == pick((close for days, close in closes.items() if days), default=0)
            if not holds and self._is_one_of_several(number.at, number.extreme):
                holds = closes[lag] == pick(closes[near] for near in (lag - 1, lag, lag + 1) if near in closes)
            return (GROUNDED if holds else CONTRADICTED), f"{entry.fact} is not the {number.extreme} of those shown"
        if not _RANGES.isdisjoint(self.words) and self._ends_range(number.at):
            spans = [(first, first + n) for n in number.span or (60,) for first in (0, 1)]  # with today, or before it
            windows = [[close for days, close in closes.items() if low <= days < high] for low, high in spans]
            holds = any(closes[lag] in (max(part), min(part)) for part in windows if part)
            wrong = UNCLEAR if _RANGE.union(_MOVED).isdisjoint(self.words) else CONTRADICTED  # "stalled between"
            return (GROUNDED if holds else wrong), f"{entry.fact} is no end of the range of those shown"
        if name in _LEVELS and name != "close":
            beside = before in ("above", "below", "than")
            return (CONTRADICTED if number.near and not beside else UNCLEAR), f"{entry.fact} is meant, not the {name}"
        if number.ago and lag not in number.ago and not self._is_about(lag, number):
            return CONTRADICTED, f"it is {entry.fact}"
        if before == "from" and not lag and not number.ago and self._goes_on(number.at, ("to",)):
            return CONTRADICTED, "the close is where the price went to"
        if before == "to" and (problem := self._came_otherwise(lag, number)):
            came_down = number.moved_within(4) and problem != "it came before"
            return (CONTRADICTED if came_down or not lag else UNCLEAR), f"{problem} {entry.fact}"
        if number.ago:
            return GROUNDED, ""
        if not lag:
            placed = name or before in _PLACES or number.side >= 0 or not self.kinds.isdisjoint(("ago", "average"))
            placed = placed or not _PRICE_WORDS.isdisjoint(self.words)
            return (GROUNDED if placed else UNCLEAR), "the words name no fact"
        # an earlier close needs a word for its day
        plural = number.named >= 0 and words[number.named] in ("closes", "prices")
        told = words[max(self.begin, number.named - 2) : number.named] if number.named >= 0 else []
        present = number.today or self._is_now(number.at) or not _PRESENT.isdisjoint(self.words)
        if name == "close" and number.near and {"earlier", "previous", "former"}.intersection(told):
            return GROUNDED, ""
        if name == "close" and number.near and not present and not _AN.union(("had", "one")).isdisjoint(told):
            return GROUNDED, ""  # "a close of $40.55 was followed by", "it had closed at $57.20"
        if not _LISTED.isdisjoint(self.words) and not (name == "close" and number.near) and not present:
            return GROUNDED, ""  # "the earlier closes show a top at $57.20"
        back_to = before == "to" and self.lags and self.lags[-1] > lag
        if plural or back_to or before == "from" or lag in number.span or number.rank or self._goes_on(number.at):
            return GROUNDED, ""
        now = ((name in ("close", "price") and number.near) or number.today) and _NARRATES.isdisjoint(self.words)
        return (CONTRADICTED if now or self._is_now(number.at) else UNCLEAR), f"it is {entry.fact}"

    def _at_extreme(self, number: _Number) -> bool:
        """Not "practically at its high", "three cents short of the top"."""
        words, roles = self.text.words, self.text.roles
        near = [
            j
            for j in range(max(self.begin, number.at - 12), min(self.end, number.at + 8))
            if roles[j] == number.extreme
        ]
        return all(_NOT_QUITE.isdisjoint(words[max(self.begin, j - 5) : j]) for j in near)

    def _is_one_of_several(self, at: int, extreme: str) -> bool:
        """ "an earlier peak at $73.03", "lows at $44.99 and $44.97": not the only one."""
        words, roles = self.text.words, self.text.roles
        place = next((j for j in range(at - 1, max(self.begin, at - 12) - 1, -1) if roles[j] == extreme), at)
        return words[place][-1] == "s" or not _AN.isdisjoint(words[max(self.begin, place - 3) : place])

    def _is_about(self, lag: int, number: _Number) -> bool:
        """ "around three weeks ago", and "yesterday's dip from $87.58", the close of the day before."""
        words = self.text.words[max(self.begin, number.at - 8) : number.at + 8]
        if "from" in self.text.words[max(self.begin, number.at - 5) : number.at] and lag - 1 in number.ago:
            return True
        near = max(number.ago) // 4 if not _ROUGHLY.isdisjoint(words) else 0
        return any(abs(lag - ago) <= near for ago in number.ago)

    def _ends_range(self, at: int) -> bool:
        """Whether a number is one of two in "between $150.00 and $156.20", "range from $150.00 to $156.20"."""
        roles, words = self.text.roles, self.text.words
        first = at if words[at - 1] in ("between", "from", "of") else at - 2
        pair = first >= self.begin and roles[first] == "number" and roles[first + 1 : first + 3] in _PAIRS
        opened = words[first - 1] == "between" or not _RANGE.difference(self.book.company).isdisjoint(
            words[max(self.begin, first - 6) : first]
        )
        return pair and opened and _APART.isdisjoint(words[max(self.begin, first - 4) : first - 1])

    def _is_now(self, at: int) -> bool:
        """Whether the words before a number speak of the present: "it now stands at"."""
        return not _NOW.isdisjoint(self.text.words[max(self.begin, at - 7) : at])

    def _came_otherwise(self, lag: int, number: _Number) -> str | None:
        """Why "rose to" is not so of the close `lag` days ago, given where the price came from; else None."""
        since = lag + (number.span[0] if number.span else 1)
        if self.lags and self.lags[-1] != lag:
            since = self.lags[-1]
        over = {lag, since - lag, *([lag] if not number.span else [])}  # the day reached, or the days it took
        if not number.ago and (since < lag or (lag and number.span and over.isdisjoint(number.span))):
            return "it came before"
        change = self._change(since, lag)
        if number.move and change is not None and not ("open" in self.kinds and not lag):
            self._use_move(number)
            if change * number.move <= 0:
                return f"it did not come {self.text.words[number.move_at]} to"
        return None

    def _goes_on(self, at: int, links: tuple[str, ...] = ("comma", "and", "to")) -> bool:
        """Whether another number follows at once: "closed at $150.00, $153.50 and $156.20"."""
        roles = self.text.roles
        for place in range(at + 1, min(self.end, at + 4)):
            if roles[place] == "number":
                return place > at + 1
            if roles[place] not in links:
                return False
        return False

    def _judge_change(self, entry: Entry, number: _Number) -> tuple[int, str]:
        """ "rose 2.3% over the last 5 days", "a gain of $3.73", "a 2.3% daily drop"."""
        name, at, quantity, words = (number.name, number.at, number.quantity, self.text.words)
        derived = entry.until or entry.fact not in self.book.facts
        if name in _OTHERS:
            theirs = number.near or not number.move or number.named > at or abs(number.named - number.move_at) <= 3
            theirs = theirs and _SUBJECTS.isdisjoint(words[number.named + 1 : at])
            if theirs:
                return CONTRADICTED, "another thing moved, not the price"
        if words[at - 1] == "by" and not number.move and not self.kinds.isdisjoint(("above", "below")):
            return CONTRADICTED, "a change is no distance"
        if quantity.unit != "percent" and not number.moved_within(3):
            apart = number.side >= 0 or (name in _LEVELS and number.near and number.before in _OF)
            apart = apart or number.before in ("from", "to")
            if number.side >= 0:
                kind, reference = self._reference(number.side, at)
                below = self.text.roles[number.side] == "below"
                if kind in ("close", "ago") and entry.days in reference and not entry.until:
                    return (GROUNDED if (entry.sign < 0) == below else CONTRADICTED), "it is the other way round"
            if number.side >= 0 and not _MARKS.isdisjoint(words[number.side + 1 : number.side + 4]):
                apart = False  # "only $0.24 under that ceiling"
            return (CONTRADICTED if apart else UNCLEAR), "the words name no fact"
        if words[at + 1 : at + 3] in (["per", "day"], ["per", "session"], ["a", "day"]):
            return CONTRADICTED, "it is no average per day"
        if name == "average" and number.before in _OF and number.near and not number.move:
            return CONTRADICTED, "an average is no change"
        move = number.move
        if quantity.sign == -move != 0:
            agreeing = any(_SIGNS.get(role) == quantity.sign for role in self.text.roles[max(self.begin, at - 12) : at])
            if number.moved_within(5) and not agreeing:
                return CONTRADICTED, "the sign contradicts the words"
            move = 0
        sign, days = move or quantity.sign, number.span
        if number.side >= 0:
            kind, reference = self._reference(number.side)
            if kind in ("ago", "close"):  # "2% higher than five days ago"
                sign, days = ((1 if self.text.roles[number.side] == "above" else -1), reference)
            elif problem := self._wrong_size(entry.value, number.side, kind, reference):
                return CONTRADICTED, problem
        days = number.own_days(days) or number.ago
        dated = number.today or bool(days)
        if dated and not self._is_over(entry, days, number):
            return CONTRADICTED, f"it is {entry.fact}"
        if not dated and any(self.lags) and not _COMPARED.isdisjoint(self.words) and entry.days not in self.lags:
            return CONTRADICTED, "it is not since the close it is compared with"
        if not sign and entry.sign < 0:
            neutral = words[at + 1 : at + 2] in (["move"], ["moves"])
            if not neutral:
                return (CONTRADICTED if name == "change" else UNCLEAR), "the words do not say that it fell"
        elif sign == -entry.sign != 0:
            decided = quantity.sign or not move or number.moved_within(8)
            return (CONTRADICTED if decided else UNCLEAR), f"{entry.fact} has the opposite sign"
        if derived and not (dated or number.extreme or self._is_dated(entry, at)):
            since = not _SINCE.isdisjoint(self.words) or self.lags
            return (UNCLEAR if since else CONTRADICTED), "over which days is not said"
        placed = dated or move or name == "change"
        if not placed and not (quantity.sign and ("ago" in self.kinds or not _PRICE_WORDS.isdisjoint(self.words))):
            return (CONTRADICTED if derived else UNCLEAR), "of what is not said"
        self._use_move(number)
        return GROUNDED, ""

    def _use_move(self, number: _Number) -> None:
        """Keep a direction that a number is told by, in its own clause, from being read a second time."""
        low, high = sorted((number.at, number.move_at))
        if number.move and _ENDS_CLAUSE.isdisjoint(self.text.roles[low + 1 : high]):
            self.used.add(number.move_at)

    def _is_over(self, entry: Entry, days: tuple[int, ...], number: _Number) -> bool:
        """Whether a change is over the days named."""
        if number.today:
            return entry.days == 1 and not entry.until
        if number.ago and entry.days == 1 and entry.until in days:
            return True  # the change of that day
        if entry.until and entry.days in days and self._between(number.at, entry):
            return True  # "3.4% in one day, from $12.95 to $12.51"
        if entry.until and entry.days in days and {entry.until, entry.until + entry.days} <= set(self.lags):
            return True  # of two closes stated before
        if entry.until == 1 and entry.days in days and not _BEFORE_TODAY.isdisjoint(self.words):
            return True  # "before today's drop it had gained 2.9% over four sessions"
        of_closes = entry.days + 1 in days and entry.fact not in self.book.facts  # "over three days", of three closes
        return (entry.days in days or (of_closes and not number.ago)) and not entry.until

    def _told_next(self, at: int) -> list[tuple[str, Entry]]:
        """The move between the two closes that follow a number: "lost $2.63 in two days, from $123.33 to $120.70"."""
        i = bisect_left(self.numbers, at) + 1
        pair = self.numbers[i : i + 2]
        if len(pair) < 2 or self.text.words[pair[0] - 1] != "from" or self.text.words[pair[1] - 1] != "to":
            return []
        equal = [equal_to(quantity_of(self.text.words[place]), self.book, 0) for place in pair]
        lags = [next((entry.days for entry in entries if entry.kind == "close"), -1) for entries in equal]
        if not lags[0] > lags[1] >= 0:
            return []
        old, new = lags
        closes = self.book.closes
        return moved_from_to(closes[old], closes[new], "change", pair_name(new, old), old - new, new)

    def _between(self, at: int, entry: Entry) -> bool:
        """Whether the two closes after a number are those that a change lies between."""
        return any(entry.fact == told.fact for _, told in self._told_next(at))

    def _is_dated(self, entry: Entry, at: int) -> bool:
        """Whether the sentence says where a change began, or it is one of several days' ("rose 2.3% and then 1.8%")."""
        if len(self.lags) > 1 or entry.days in self.lags or "ago" in self.kinds:
            return True
        i = bisect_left(self.numbers, at)
        beside = (*self.numbers[max(0, i - 1) : i], *self.numbers[i + 1 : i + 2])
        others = [other for j in beside for other in equal_to(quantity_of(self.text.words[j]), self.book, 0)]
        steps = [other.until for other in others if other.kind == "change" and other.days == 1]
        return entry.days == 1 and any(abs(step - entry.until) == 1 for step in steps)

    def _wrong_size(self, size: float, side: int, kind: str, days: tuple[int, ...]) -> str | None:
        """Why a size that is compared with another is not so ("larger than the volatility of 1.5%"), else None."""
        if kind == "nothing":
            return None
        if kind == "change":
            other = abs(self._change(days[0]) or 0) if days else 0
            if not other:
                return None
        elif kind == "percent":
            other = quantity_of(self.text.words[days[0]]).value
        elif kind == "volatility":
            values = [value for name, value in self.book.values.items() if name.startswith("volatility_")]
            if len(values) != 1:
                return None
            other = values[0]
        else:
            return "compared with something else"
        if (size > other) == (self.text.roles[side] == "above"):
            return None
        return f"{size:.2f} and {other:.2f} compare the other way"

    def _judge_versus(self, entry: Entry, number: _Number) -> tuple[int, str]:
        """ "$3.73 above its 20-day average", "above its average by 2.2%", "1.02 times its open"."""
        roles, words, at, side = (self.text.roles, self.text.words, number.at, number.side)
        if side < 0 and words[at - 1] == "by":
            side = next((j for j in range(at - 1, max(self.begin, at - 16), -1) if roles[j] in ("above", "below")), -1)
        what = "open" if "open" in entry.fact else "average"
        if number.name == what and number.named < at and side < 0 and roles[at + 1 : at + 2] != ["than"]:
            where = words[at + 1] if at + 1 < self.end else ""
            if where in ("lower", "higher"):  # "its 20-day average sits $1.15 lower"
                holds = (entry.sign > 0) == (where == "lower")
                return (GROUNDED if holds else CONTRADICTED), "it is the other way round"
        if number.quantity.unit == "usd" and (number.before == "at" or words[at - 1] in _STANDS) and side < 0:
            closed = "close" in roles[max(self.begin, at - 3) : at] or at - 1 == self.begin
            if closed or words[at - 1] == "at":
                return CONTRADICTED, "a difference is no level"
        if side >= 0:
            kind, days = self._reference(side, at)
            if kind not in (what, "", "nothing", "implied"):
                return CONTRADICTED, "compared with something else"
            if kind in ("average", "implied") and days and entry.days not in days:
                return CONTRADICTED, f"it is {entry.fact}"
            self.used.add(side)
            holds = not entry.sign or (entry.sign > 0) == (roles[side] == "above")
            return (GROUNDED if holds else CONTRADICTED), f"{entry.fact} is the other way round"
        if what not in self.kinds or (number.name in _OTHERS and number.near):
            # "that gap, $3.79" is of what stood before
            apart = what not in self.kinds and not _APART.isdisjoint(self.words)
            return (UNCLEAR if apart else CONTRADICTED), "compared with nothing"
        if number.move == -entry.sign != 0 and number.moved_within(3):
            return CONTRADICTED, f"{entry.fact} is the other way round"
        if number.name == "change" and number.near and number.before in _OF:
            return CONTRADICTED, "a change is no distance"
        if number.move and (number.span or number.ago or number.today) and what != "open":
            return CONTRADICTED, "a move over some days is no distance"
        is_level = number.name == "average" and number.near and number.before in _OF
        if is_level and _APART.isdisjoint(words[self.begin : at]):
            return CONTRADICTED, "an average is no difference"
        return GROUNDED, ""

    def _reference(self, side: int, besides: int = -1) -> tuple[str, tuple[int, ...]]:
        """(what, days) a price is compared with after "above" or "below": the first thing named there. A percentage is
        ("percent", (its place,)), a pronoun ("", ()). besides: place of the number that says how far above."""
        text = self.text
        if text.words[side + 1 : side + 2] == ["both"] and text.words[side + 2 : side + 3] in (
            ["at"],
            [","],
            ["."],
            ["and"],
        ):
            return "average", ()
        for place in range(side + 1, min(self.end, side + 12)):
            role = text.roles[place]
            if role in ("so", "contrast"):
                break
            if role == "number" and place != besides:
                if quantity_of(text.words[place]).unit not in ("usd", ""):
                    return "percent", (place,)
                level = self.levels.get(place) or self._only_level(place)
                return (level.kind, (level.days,)) if level else ("nothing", ())
            if role == "span" and text.days[place][0] in self.book.averages:
                following = text.roles[place + 1 : place + 3]
                if "change" in following[:1]:
                    continue
                if not {"change", *_SIGNS}.isdisjoint(following):
                    return "change", text.days[place]  # "smaller than the 20-day move"
                return "average", text.days[place]  # "above the 20-day"
            if role == "close" or text.words[place] == "price":
                of = next((j for j in range(place + 1, min(self.end, place + 3)) if text.roles[j] == "number"), -1)
                if of >= 0 and of != besides and (level := self.levels.get(of) or self._only_level(of)):
                    return level.kind, (level.days,)  # "10% above the earlier close of $98.08"
                return "close", self._days_of_close(place, after=side)
            if role == "change":
                of = next((j for j in range(place + 1, min(self.end, place + 4)) if text.roles[j] == "number"), -1)
                if of >= 0 and quantity_of(text.words[of]).unit == "percent":
                    return "percent", (of,)  # "larger than the 5-day change of 2.5%"
            if role in _LEVELS or role == "ago" or role == "change":
                return role, text.days.get(place, ())
        if not _PRONOUNS.isdisjoint(text.words[side + 1 : side + 3]):
            return "", ()
        before = next((j for j in range(side - 1, self.begin, -1) if text.roles[j] == "average"), -1)
        return ("implied", text.days.get(before, ())) if before >= 0 else ("nothing", ())

    def _only_level(self, place: int) -> Entry | None:
        """The one price that a number equals, though the words do not name it ("just below the earlier $249.19")."""
        levels = [entry for entry in equal_to(quantity_of(self.text.words[place]), self.book, 0)
                  if entry.kind in ("close", "average", "open")]  # fmt: skip
        return levels[0] if len(levels) == 1 else None

    def _days_of_close(self, place: int, after: int = -1) -> tuple[int, ...]:
        """The lags that words near a "close" name, in places after `after`: "the close of two days ago"."""
        for near in range(max(self.begin, place - 3, after + 1), min(self.end, place + 5)):
            if self.text.roles[near] == "ago":
                return self.text.days[near]
        return (0,)

    def _told(self, entry: Entry, number: _Number) -> _Verdict:
        """The verdict on a grounded number, with the evidence it gives."""
        why = f"equals {entry.fact}"
        if entry.kind in ("change", "pace", "versus"):
            self.changes.append(entry)
            return _Verdict(entry.fact, why, False, entry.sign)
        if entry.kind in ("close", "average", "open", "mean"):
            self.levels[number.at] = entry._replace(kind="average") if entry.kind == "mean" else entry
        if entry.kind != "close":
            return _Verdict(entry.fact, why)
        closes, lags, lag = self.book.closes, self.lags, entry.days
        lags.append(lag)
        # "from $150.00 to $156.20", "closes of $150.00, $153.50 and $156.20": tells of the move from first to last
        told = number.before == "to" or (number.rank > 0 and not self._goes_on(number.at))
        first = lags[-1 - number.rank] if 0 < number.rank < len(lags) else lags[-2] if len(lags) > 1 else lag
        if not told or first == lag:
            return _Verdict(entry.fact, why)
        new, old = sorted((first, lag))
        return _Verdict(entry.fact, why, False, sign_of(closes[new] - closes[old]), pair_name(new, old))

    def _change(self, days: int, until: int = 0) -> float | None:
        """Percent change of the close from `days` to `until` days ago, as shown or from two closes; None if unknown."""
        closes = self.book.closes
        if not until and f"change_{days}d" in self.book.values:
            return self.book.values[f"change_{days}d"]
        return (
            100 * (closes[until] / closes[days] - 1) if days != until and days in closes and until in closes else None
        )

    # ------------------------------------------------------------------------------------------------ words only

    def _comparisons(self) -> Iterator[_Statement]:
        """ "closed above its 20-day average", "$175.53 is higher than the open of $174.00", "$175.53 > $171.80"."""
        text, roles = self.text, self.text.roles
        subject: tuple[str, tuple[int, ...]] = ("close", (0,))
        last_at = -20
        for at in range(self.begin, self.end):
            if roles[at] not in ("above", "below"):
                continue
            if at in self.used:  # "is 14% under its 20-day average, and even below the 5-day average"
                last_at, subject = at, ("close", (0,))
                continue
            nearby = roles[max(self.begin, at - 8) : at]
            if not {"firm", "weak", "own"}.isdisjoint(nearby) or nearby[-1:] == ["to"] or text.words[at - 1] == "from":
                continue  # "expect it to close above", "a move to above"
            if nearby and nearby[-1] == "number" and at - 1 not in self.levels:
                continue
            if not _NO_REFERENCE.isdisjoint(text.words[at + 1 : at + 3]):
                continue  # "each above the next", "the shorter under the longer"
            if not _NOTHING.isdisjoint(text.words[max(self.begin, at - 8) : at]):
                continue  # "nothing else is above $145.17"
            ahead = roles[at + 1 : min(self.end, at + 5)]
            moved = next((j for j, role in enumerate(ahead) if role in _SIGNS or role == "change"), 9)
            if moved < next((j for j, role in enumerate(ahead) if role in _LEVELS or role == "number"), 9):
                continue  # "smaller than the gain of the day before"
            if not _FORMERLY.isdisjoint(text.words[at + 1 : at + 6]):
                continue  # "was well under that average before this spike"
            kind, days = self._reference(at)
            implied = kind == "implied"  # "the average is far beneath"
            if implied:
                kind = "average"
            if not kind:
                kind, days, implied = "close", (0,), True  # "its average is below it"
            if kind not in ("average", "close", "ago", "open"):
                continue
            between = roles[last_at + 1 : at] if at - last_at <= 14 else ["so"]
            if any(role in _SIGNS or role in ("so", "price") for role in between):
                subject = self._subject(at)
            last_at = at
            one = self._price(*subject)
            if one is None:
                continue
            if days and text.words[at + 1 : at + 2] == ["both"]:  # "both the 5-day average of … and the 20-day average"
                averages = [j for j in range(at + 2, min(self.end, at + 15)) if roles[j] == "average"]
                days = tuple(n for j in averages for n in text.days.get(j, ())) or days
            lengths = days or (tuple(self.book.averages) if kind == "average" else (0,))
            others = [other for n in lengths if (other := self._price(kind, (n,)))]
            others = [other for other in others if other[0] != one[0] and other[2] != one[2]]
            clause = max((j for j, role in enumerate(nearby) if role in _CLAUSE), default=0)
            says_above = (roles[at] == "above") != ("not" in nearby[clause:])
            true = [other for other in others if (one[2] > other[2]) == says_above]
            if true and kind in ("close", "ago"):  # "above the last close", today's or the one before
                others = true = true[:1]
            stop = min(self.end - 1, at + 4)
            if others and true == others:
                yield from ((at, stop, _compared(one, other), False) for other in others)
            elif others and (days or not true) and not implied and _BEFORE_NOW.isdisjoint(self.words):
                wrong = next(other for other in others if other not in true)
                yield (at, stop, _untrue(f"{one[0]} is on the other side of {wrong[0]}"), False)

    def _price(self, kind: str, days: tuple[int, ...]) -> "_Price | None":
        """The one price or average that is meant, None when there is none."""
        book = self.book
        if kind == "average":
            days = days or tuple(book.averages)
            if len(days) == 1 and (mean := mean_of(book, days[0])):
                return f"sma_{days[0]}", days[0], mean
        elif kind in ("close", "ago"):
            lag = days[0] if days else 0
            if lag in book.closes:
                return close_name(lag), lag, book.closes[lag]
        elif kind == "open" and "open" in book.facts:
            return "open", 0.5, book.values["open"]
        return None

    def _subject(self, at: int) -> tuple[str, tuple[int, ...]]:
        """What a comparison at `at` speaks of: the price, average or other thing last named; else the close."""
        roles, words = self.text.roles, self.text.words
        for place in range(at - 1, max(self.begin, at - _REACH) - 1, -1):
            role = roles[place]
            if words[place] in _SUBJECTS or role in ("price", "so"):
                break
            if place in self.levels and not (self.levels[place].kind == "close" and "and" in roles[place:at]):
                return self.levels[place].kind, (self.levels[place].days,)
            if role == "close":
                return "close", self._days_of_close(place)
            if role in _LEVELS:
                return role, self.text.days.get(place, ())
        return "close", (0,)

    def _moves(self) -> Iterator[_Statement]:
        """ "has fallen over the last 5 days", "the third straight gain", "higher on 4 of the last 5 days"."""
        words, roles = self.text.words, self.text.roles
        for at in range(self.begin, self.end):
            if roles[at] == "span" and len(self.text.days[at]) == 1 and roles[at - 1] != "of":
                (n,) = self.text.days[at]
            elif roles[at] == "streak" and "span" not in roles[max(self.begin, at - 6) : at + 7]:
                places = range(at - 1, max(self.begin, at - 6) - 1, -1)
                n = next((n for j in places if (n := count_at(self.text, j))), 2)
            else:
                continue
            low, high = max(self.begin, at - 8), min(self.end, at + 7)
            low = max((j + 1 for j in range(low, at) if roles[j] in _ENDS_MOVE), default=low)
            high = next((j for j in range(at, high) if roles[j] in _ENDS_MOVE), high)
            kinds = set(roles[low:high])
            used = () if "streak" in kinds else self.used  # "three gains in a row have brought it to $150.00"
            moves = [place for place in range(low, high) if roles[place] in _SIGNS and place not in used]
            if len(moves) != 1 or not kinds.isdisjoint(_NO_PLAIN_MOVE):
                continue
            move = moves[0]
            if n == 1 and "streak" not in kinds and at - move > 4:
                continue  # "a rising stock having a small off day"
            if roles[move] in ("back up", "back down") and not words[move].endswith("ed"):
                continue  # "a pullback", of which nobody says that it happened
            if not _UNDONE.isdisjoint(words[low:high]) or not _APART_FROM_THAT.isdisjoint(words[low:at]):
                continue  # "has just erased an earlier rally"
            sign, count = _SIGNS[roles[move]], self._count(at, move)
            if "streak" in kinds or (count is None and not _EVERY.isdisjoint(words[low:high])):
                count = n
            change = self._change(n)
            if n >= _FIRST_LONG_SPAN and words[move] not in self.book.words:
                yield at, at, _untrue("nothing shown goes back so far"), False
                continue
            if count is None and not change:
                continue
            if count is None or n == 1:
                holds = not change or change * sign > 0
            else:
                steps = [self._change(lag + 1, lag) for lag in range(n + 1)]
                if None in steps[:n]:
                    yield at, at, _untrue("nothing shown says so"), False
                    continue
                up = [step * sign > 0 for step in steps if step is not None]
                broken = not _BROKEN.isdisjoint(self.words) or "end" in self.kinds  # "after three gains it fell"
                holds = count == sum(up[:n]) or (broken and count == sum(up[1:]))
                sign *= sign_of(2 * count - n)
            true = _Verdict(f"change_{n}d", "the closes bear it out", False, sign)
            path = _BEFORE_THEN if "streak" in kinds else _PATH
            if not holds and (not path.isdisjoint(self.words) or "change" in roles[at + 1 : at + 2]):
                continue  # "before it the week was higher", "after the drop the 5-day change is"
            verdict = true if holds else _untrue("the closes shown say otherwise")
            yield min(at, move), max(at, move), verdict, False

    def _count(self, at: int, move: int) -> int | None:
        """k of "higher on k of the last n days" or "k gains in n days", whose span is at `at`; None when not said."""
        words, roles = self.text.words, self.text.roles
        if "of" in words[max(self.begin, at - 4) : at]:  # "of the last ten sessions only two ended higher"
            after = next(
                (j for j in range(at + 1, min(self.end, at + 4)) if roles[j] in ("count", "bare", "number")), 0
            )
            if after and after < move and count_at(self.text, after):
                return count_at(self.text, after)
        of = next((j for j in range(at - 1, max(self.begin, at - 6), -1) if words[j] == "of"), move)
        told = of > self.begin and roles[of - 1] in ("bare", "count") and words[of - 2] != "every"
        return count_at(self.text, of - 1) or None if told else None

    def _unchanged(self) -> Iterator[_Statement]:
        """ "ended the day unchanged": nothing has moved so little."""
        at = self.text.words.index("unchanged", self.begin)
        days = next((self.text.days[j] for j in range(self.begin, self.end) if self.text.roles[j] == "span"), (1,))
        if self.kinds.isdisjoint(_LEVELS - {"close"}) and abs(self._change(days[0]) or 0) > 0.1:
            yield at, at, _untrue("the price has moved"), False

    def _superlatives(self) -> Iterator[_Statement]:
        """ "a record high", "its 52-week low": nothing shown can say so, unless a headline does. "The highest close of
        the last 10 days", "its largest move in 15 sessions": checked against the closes shown."""
        roles, words, days = self.text.roles, self.text.words, self.text.days
        for at in range(self.begin, self.end):
            role, word = roles[at], words[at]
            is_year = role == "bare" and len(word) == 4 and word[:2] in ("19", "20")
            if is_year or (role == "span" and days[at][0] > 60):
                is_claim = not _EXTREMES.isdisjoint(roles[max(self.begin, at - 6) : at + 7])
            elif role == "record":
                is_claim = word not in self.book.words
            else:
                is_claim = role in ("high", "low") and words[max(0, at - 2) : at] == ["all", "time"]
            if is_claim:
                yield at, at, _untrue("nothing shown says so"), False
            elif role in ("high", "low") and not {"fresh", "new"}.isdisjoint(words[max(self.begin, at - 2) : at]):
                if (word not in self.book.words) and (verdict := self._highest(f"{role}est", "close", 60)):
                    yield at, at, verdict, False
            elif word in ("highest", "lowest") or role == "superlative":
                what = next((role for role in roles[at + 1 : min(self.end, at + 3)] if role), "")
                if not what and "close" in roles[max(self.begin, at - 8) : at]:
                    what = "close"  # "the close of $61.68 is the highest in the list"
                until = next((j for j in range(at, self.end) if roles[j] in _ENDS_MOVE), self.end)
                span = next((days[j][0] for j in range(at + 1, until) if roles[j] == "span" and days[j][0] > 1), 60)
                if words[at + 1 : at + 2] == ["of"] and not _SOME.isdisjoint(words[at + 2 : at + 4]):
                    continue  # "the largest of those drops"
                verdict = self._largest(what, span) if role == "superlative" else self._highest(word, what, span)
                if verdict:
                    yield at, at, verdict, False

    def _largest(self, what: str, span: int) -> _Verdict | None:
        """The verdict on "the largest move of the last `span` days", said of the last day's; None when it is true."""
        closes = self.book.closes
        if what in ("change", "of", *_SIGNS) and any(entry.days == 1 and not entry.until for entry in self.changes):
            lags = [lag for lag in closes if lag + 1 in closes and lag < span]
            steps = {lag: abs(closes[lag] / closes[lag + 1] - 1) for lag in lags}
            if steps and steps.get(0, 0) < max(steps.values()):
                return _untrue("another day moved more")
        return None

    def _highest(self, word: str, what: str, span: int) -> _Verdict | None:
        """The verdict on "the highest close of the last `span` days", said of the close; None when of another."""
        closes = self.book.closes
        if what not in ("close", "price", "of") or 0 not in closes:
            return None
        if any(entry.kind == "close" and entry.days for entry in self.levels.values()):
            return None
        shown = [close for lag, close in closes.items() if lag < span]
        if len(shown) < 2:
            return _untrue("nothing shown says so")
        if closes[0] != (max if word == "highest" else min)(shown):
            return _untrue("another close is " + word.replace("est", "er"))
        return _Verdict("close vs earlier closes", "no other close is", False, 1 if word == "highest" else -1)

    def _spelled(self) -> Iterator[_Statement]:
        """ "a two percent loss", "half of its value", "by a fifth": an amount in words that a fact must have."""
        words = self.text.words
        for at in range(self.begin, self.end - 1):
            size: float | None = COUNTS.get(words[at]) if words[at + 1 : at + 2] in (["percent"], ["per"]) else None
            led = words[at - 2] in _LEADS_A_FRACTION or words[at + 1] in _APART_BY
            led = led and not {"close", "day", "session"} & set(words[at + 2 : at + 3])  # "a fifth lower close"
            led = led or (words[at + 1] == "of" and not {"value", "price"}.isdisjoint(words[at + 2 : at + 4]))
            if words[at] in _FRACTIONS and words[at - 1] in ("a", "by", "lost") and led:
                size = _FRACTIONS[words[at]]
            average = next((j for j in range(at + 1, min(self.end, at + 8)) if self.text.roles[j] == "average"), 0)
            if (
                words[at] in _RATIOS
                and average
                and _OF_ITS.issuperset(words[at + 1 : average])
                and 0 in self.book.closes
            ):
                ratios = [self.book.closes[0] / value for value in self.book.averages.values()]
                if all(abs(ratio - _RATIOS[words[at]]) > 0.25 for ratio in ratios):
                    yield at, at, _untrue("it is not so far from its average"), False
            ahead = {"firm", "weak", "own"}.intersection(self.text.roles[max(self.begin, at - 6) : at])
            if size and not ahead and not equal_to(Quantity(size, 0.05 * size + 0.5, 0, "percent", 0), self.book, 0):
                yield at, at + 1, _untrue("nothing shown has this number"), False

    def _equals(self) -> Iterator[_Statement]:
        """ "the close of $60.30 equals the 20-day average of $59.81": the numbers on both sides must be near."""
        at = self.text.words.index("equals", self.begin)
        before, after = [n for n in self.numbers if n < at], [n for n in self.numbers if n > at]
        if before and after:
            one, other = (quantity_of(self.text.words[place]) for place in (before[-1], after[0]))
            if one.unit == other.unit and abs(one.value - other.value) > 0.003 * other.value:
                yield at, at, _untrue("they are not equal"), False

    def _in_words(self) -> Iterator[_Statement]:
        """ "a close of seventy-nine dollars": from twenty on, an amount in words must be a price or a move."""
        words = self.text.words
        for at in range(self.begin, self.end):
            if words[at] not in ("dollars", "dollar"):
                continue
            began = at
            while began > self.begin and (words[began - 1] in _TENS or words[began - 1] in COUNTS):
                began -= 1
            value = _amount_in(words[began:at])
            if value >= 20 and not equal_to(Quantity(value, 0.5 + 0.02 * value, 0, "usd", 0), self.book, 0):
                yield began, at, _untrue("nothing shown has this number"), False

    def _events(self) -> Iterator[_Statement]:
        """ "insiders bought", "it was upgraded": told as a fact, and no headline tells of it."""
        for at in range(self.begin, self.end):
            role, stem = self.text.roles[at], self.text.words[at][:5]
            told = role == "event" or (role == "volume" and "volume" not in self.book.facts)
            if told and not any(word.startswith(stem) for word in self.book.words):
                yield at, at, _untrue("nothing shown tells of it"), False


def _amount_in(words: Sequence[str]) -> float:
    """ "two hundred thirty" → 230."""
    value = part = 0.0
    for word in words:
        size = _TENS.get(word) or COUNTS[word]
        if size == 100:
            part = (part or 1) * 100
        elif size == 1000:
            value, part = value + (part or 1) * 1000, 0.0
        else:
            part += size
    return value + part


_Price = tuple[str, float, float]  # fact, how many days it looks back, value


def _compared(one: _Price, other: _Price) -> _Verdict:
    """The evidence of two prices or averages that compare as said: the newer above the older is bullish."""
    newer, older = sorted((one, other), key=lambda price: price[1])
    fact = f"{newer[0]} vs {older[0]}"
    if older[0].startswith("close_"):
        fact = pair_name(int(newer[1]), int(older[1])) if newer[0].startswith("close") else fact
    return _Verdict(fact, f"{one[0]} and {other[0]} compare so", False, sign_of(newer[2] - older[2]))
