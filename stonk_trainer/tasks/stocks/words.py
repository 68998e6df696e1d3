"""The words a reasoning is read by: a lexicon of roles, and from a text to its words, numbers and sentences.

`read` cuts a text once, with one regular expression, into flat parallel lists; everything after it works on places in
these lists. A word has at most one role; the few that depend on their neighbours ("gave up", "the 5- and 20-day
averages", "two weeks ago") are settled in one pass. Time is linear.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple


class Sentence(NamedTuple):
    """A sentence from place `begin` up to `end` of a text; start: its first character; its words and their roles, and
    the set of these."""

    begin: int
    end: int
    start: int
    words: list[str]
    roles: list[str | None]
    kinds: set[str | None]


class Text(NamedTuple):
    """A text as lists over its words, numbers and marks, which share one index, the place.

    words: in lower case. roles: of `_ROLES`, or "number" (it states an amount), "bare" (a small count, a year),
    "ago", "financial"; "" for an English word without a role, None for a word that is not known. starts: character
    where each begins. days: by place, the trading days that a span, an "ago", an average or a volatility names.
    items: by place, the fact a "financial" is. numbers: places of the amounts.
    """

    words: list[str]
    roles: list[str | None]
    starts: list[int]
    days: dict[int, tuple[int, ...]]
    items: dict[int, str]
    numbers: list[int]
    sentences: list[Sentence]


def _verbs(stems: str) -> str:
    """All forms of regular verbs: "rally" gives rally, rallies, rallied, rallying."""
    forms = []
    for stem in stems.split():
        if stem[-1] == "y" and stem[-2] not in "aeo":
            forms += [stem, stem[:-1] + "ies", stem[:-1] + "ied", stem + "ing"]
        else:
            doubled = stem[-1] if stem in ("drop", "slip", "dip", "stop", "cap", "slim") else ""
            base = stem.removesuffix("e") + doubled
            forms += [stem, stem + ("es" if stem[-1] in "shx" else "s"), base + "ed", base + "ing"]
    return " ".join(forms)


_ROLES = {
    # what a number can be of
    "close": "close closed closes closing settle settled settles settling finished finishes",
    "open": "open opened opens opening",
    "average": "average averages sma smas ma mas mean line averaged averaging",
    "volatility": "volatility",
    "volume": "volume volumes turnover",
    "price": "price prices priced trades traded trading quoted reached reaching hit hitting quote",
    "change": "change changes changed move moves moved return returns returned returning performance",
    # directions
    "up": _verbs("gain climb jump advance increase rally surge add soar appreciate spike lift")
    + " rise rises rose risen rising grow grows grew grown growing up higher uptick upswing upside plus winning",
    "down": " ease "
    + _verbs("drop decline slide slip decrease tumble plunge dip slump crash sink depreciate")
    + " fall falls fell fallen falling slid lose loses lost losing loss losses shed sheds shedding sank sunk down lower"
    " selloff downtick downside minus eased eases easing drawdown",
    "positive": "bullish bullishly positive positively upward upwards uptrend upbeat",
    "negative": "bearish bearishly negative negatively downward downwards downtrend",
    "strength": "strength",
    "weakness": "weakness",
    # a past move when a number measures it, else one that is expected
    "back up": _verbs("rebound bounce recover") + " recovery recoveries",
    "back down": _verbs("retreat")
    + " pullback pullbacks giveback setback setbacks profittaking correction corrections retracement",
    # a move read as having gone too far
    "turn up": "oversold cheap cheaply bargain bargains undervalued washedout capitulation capitulated discount",
    "turn down": "overbought overextended overheated overvalued frothy euphoria toppy rich",
    "turn": "breather unsustainable excessive overdone overshot overshoot overshooting reversion stretched stretching"
    " exhausted exhaustion overreaction overreacted overreact revert reverts reverting snapback crowded"
    " digest digestion consolidate consolidation mispriced",
    "room": "room overdue",
    "buy": "buy buying",
    "sell": "sell selling avoid",
    "above": "above exceeds exceed exceeded exceeding",
    "below": "below beneath under",
    "high": "high highs highest peak peaks peaked",
    "low": "low lows lowest trough bottom",
    "record": "record records alltime ever historic historical lifetime unprecedented doubled tripled halved",
    "superlative": "best worst strongest weakest biggest largest sharpest steepest",
    # the writer's own outlook
    "firm": "will would should going expect expects expecting expected likely predict predicts predicting prediction"
    " forecast forecasts forecasting tomorrow anticipate anticipates anticipating outlook lean leaning leans bet shall"
    " ahead poised heading headed i'd i'll it'll i'm am due think believe say call verdict answer tend tends"
    " guess choose",
    "weak": "may might could can risk risks possible possibly perhaps maybe",
    "own": "confidence confident probability chance chances odds",
    "target": "target targets",
    # other people, and other things than the share's price, that numbers are of
    "others": "analysts analyst consensus experts brokers economists forecasters historically",
    "other": "revenue revenues sales profit profits income eps dividend dividends margin margins debt cash"
    " index sector industry beta inflation gdp oil yield guidance orders deliveries rival rivals competitor"
    " competitors peers nasdaq dow s&p market markets subscribers users exports bookings backlog inventory shipments",
    # what no number of the prompt tells of
    "event": _verbs("upgrade downgrade announce acquire resign") + " announcement announcements acquisition takeover"
    " merger buyback buybacks repurchase lawsuit lawsuits insider insiders ceo approval layoffs recall bankruptcy fed"
    " management executives regulators tariffs patent launch launched"
    " opec central hour hours minute minutes rsi macd stochastic oscillator bollinger fibonacci earnings",
    "look": "look looking",
    "even": "even",
    "end": _verbs("end stop reverse fade halt pause stall offset limit cap absorb exhaust outweigh")
    + " slows slowed slowing temporary brief unwind bought",
    "not": "whether not no nothing nobody none never without unlikely don't doesn't didn't isn't wasn't hasn't won't"
    " can't cannot couldn't wouldn't shouldn't haven't aren't weren't neither nor hardly fails failed fail failing"
    " rather lacks lack lacking",
    "contrast": "but although though despite however while yet whereas nevertheless nonetheless albeit notwithstanding"
    " regardless outweigh outweighs",
    "so": "so because therefore thus hence suggests suggest suggesting suggested show shows showing showed"
    " indicates indicate indicating indicated signals signal signalling signaling points pointing supports support"
    " supporting supported supportive implies imply implying confirms confirm confirming reflects reflecting means"
    " meaning reason reasons momentum trend trends trending strong stronger weak weaker steady steadily continue"
    " continues continued continuing persist persists pressure tells argues argue favours favors"
    " demonstrates demonstrating reveals leaves leaving makes keeps keeping evidence hints hinting consistent",
    # how words join
    "and": "and then or",
    "as": "as after following when where which that given with",
    "to": "to",
    "from": "from",
    "of": "of",
    "at": "at near around about roughly approximately nearly almost just is was are were stands stood sits sat by has"
    " been remains being be currently now only stand",
    "than": "than versus vs compared against",
    "previous": "previous prior preceding",
    "last": "last past latest recent",
    "day": "day days session sessions week weeks month months fortnight quarter quarters year years decade decades"
    " day's session's week's month's year's weekly monthly quarterly yearly",
    "today": "today daily intraday today's",
    "yesterday": "yesterday yesterday's",
    "back": "ago earlier back before taking off",
    "count": "one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty sixty thirteen"
    " fourteen sixteen seventeen eighteen nineteen",
    "ordinal": "second third fourth fifth sixth seventh eighth ninth tenth",
    "since": "since",
    "over": "over",
    "next": "next",
    "shade": "green red",
    "favour": "favour favor",
    "cool": "cool cools cooling",
    "short": "short",
    "streak": "consecutive straight row running successive streak",
    "moving": "simple exponential",
}
# Articles, prepositions and common verbs without a role: with those above they hold a sentence together.
_GRAMMAR = set(
    "a about across again against all along also amid an and any are as at be been between both but by did do "
    "does during each for from had has have having he her his how i if in into is it its least less more most my "
    "not of off on once onto or our out over per she so some such than the their there these they this those "
    "through to too toward towards under until upon very via was we were what whether who whose why will with "
    "within would you it's i've that's there's they've we've they're".split()
)
_KNOWN = set(
    "able accelerate accelerating acceleration action activity actually additionally already always among amount "
    "another anything apart appear appears appetite area assets attempt away bad balance balanced band barely base "
    "based basically basis bear bears beat beats began begin begun behind better beyond bias bid big bigger billion "
    "bit boost boosted boosts break breakout breaks broad broke broken build building builds built bull bulls "
    "business buyer buyers buying calls calm came case catalyst catalysts caution cautious ceiling cent cents certain "
    "certainly chart chased chasing choppy clear clearly climax closer combined come comes comfortable comfortably "
    "coming companies company company's compare comparing comparison complacency complacent concern concerns conclude "
    "conclusion consider considering consistently continuation contrarian control controlled converge cooling couple "
    "cross crossed crosses crossing current data demand despair different digested direction doing dollar dollars "
    "dominant dominate dominated dominates double doubt doubts drift drifted drifting drive driven drives early edged "
    "edging either elastic enough enthusiasm entire equity estimates euphoric every everyone everything ex exactly "
    "exaggerated except excess excesses expensive explain explained explains extended extending extends extreme "
    "extremes fair fairly far fast fear feel feels few figure figures finally financial financials find finds finish "
    "finished finishing firm firmly first firstly flat floor flow follow followed follows followthrough force forces "
    "forever found fragile frenzy fundamental fundamentals further furthermore gap gave general get gets give gives "
    "giving go goes good got gradual gradually gravity greed grinding gross growth half happen happened happens "
    "headline headlines headwind headwinds healthy heavy held help helped helps herd here here's history hold holding "
    "holds hopeful hunters im important inched inconclusive instead intact interest investor investors irrational ive "
    "keep kept key knife know known large largely larger late lately later lead leads leave led left let let's level "
    "levels liabilities lift lifted lifts light lines long looked looks lopsided lot made magnet main mainly major "
    "make making many mark markedly market's matter matters meanwhile medium mild million minor miss mixed modest "
    "modestly mood moreover mostly move's much must narrow nearby need needs net neutral new news noise normal "
    "normalise normalize north note noted notes noting nudged number numbers offer offers often ok okay old ongoing "
    "operating opposite optimism optimistic other ought overall overboard pair panic panicked parabolic part "
    "partially participation partly parts patience pattern patterns pendulum percent percentage period persistent "
    "pessimistic picture piled placed point position positioned power precisely prefer pretty price's print printed "
    "prints probably product products pull pulled pulling pulls push pushed pushes put puts quick quickly quiet "
    "quietly quite ran random range ranges rarely ratio reading readings really recently reclaim reclaimed reclaiming "
    "reflect regain regained rejected rejection relative relief remain remained report reports resistance results "
    "retrace retraced reversal reversals robust rout rubber run runs said same saw saying says sceptical secondly see "
    "seem seems seen sees seldom seller sellers selling sentiment setup several share share's shares sharp sharply "
    "sheet short shown side sides similar simply sitting size skeptical slight slightly slow small smaller snap "
    "snapped snapping sold solid something sometimes somewhat soon south squeeze stable stampede start started starts "
    "stay stayed staying stays steam still stock stock's stocks stretch succeed sudden suddenly summary supply sure "
    "sustained swing swings tacked tailwind tailwinds take taken takes tape technical technically tell term territory "
    "test tested testing tests thin ticked tight time times tired together told tomorrow's tone took top total touch "
    "touches trader traders trapped tries try trying turn turned turning turns twice typical uncertain uncertainty "
    "unjustified unless unstable unsure unusual usual usually valuation value values vertical view volatile "
    "vulnerable want wary weary weigh weighing weight well went whole wide wins wobble won work working works worried "
    "worries worry worse worth yes zero zone".split()
)
_ROLE = {word: role for role, words in reversed(_ROLES.items()) for word in words.split()}
_MARKS = {"<": "below", ">": "above", "\u2192": "to", "->": "to", "=>": "to", ":": "colon", "=": "colon"}
_MARKS |= (
    dict.fromkeys("()", "bracket")
    | dict.fromkeys(",|", "comma")
    | dict.fromkeys(("\n", ";", ".", "!", "?"), "end of sentence")
)
_ROLE_OR_NONE = dict.fromkeys(_KNOWN | _GRAMMAR, "") | _ROLE | _MARKS
_JOINING = _GRAMMAR | {"<", ">"}
_JOINING |= {word for role in ("at", "of", "to", "from", "and", "as", "than") for word in _ROLES[role].split()}
COUNTS = {word: n for n, word in enumerate(_ROLES["count"].split()[:12], start=1)}
COUNTS |= {"thirteen": 13, "fourteen": 14, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19}
COUNTS |= {"fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60}
COUNTS |= {word: n for n, word in enumerate(_ROLES["ordinal"].split(), start=2)}
_DAYS_IN = {"we": 5, "fo": 10, "mo": 20, "qu": 63, "ye": 252, "de": 2520}  # by the first letters of week, fortnight, …

SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "mn": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9, "b": 1e9}
SCALES |= {"trillion": 1e12, "t": 1e12}
_MONEY = "$\u20ac\u00a3\u00a5"
# Each alternative begins with a character: a pattern that begins with an assertion is tried in vain at every space.
_ALONE = rf"(?:(?<!\d-.)(?<![\w.:{_MONEY}].)|(?<=\bsma.)|(?<=\bma.))"  # what stands before a number's first character
_AMOUNT = (
    r"[0-9,]*(?:\.[0-9]+)?(?<!,)(?!\d|[:/]\d|-\d|\.\d|[^\W_a-z])"
    rf"(?:[ -]?(?:{'|'.join(SCALES)})(?![a-z]))?"
    r"(?: ?(?:%|(?:percent(?:age points?)?|pct|dollars?|usd|x|times|cents?|bps|basis points?)(?![a-z])))?"
)
# A line that goes on in lower case, with a number or in a bracket is the same sentence; "vs." ends none.
_TOKEN = re.compile(
    r"([a-z]+(?:['&/][a-z]+)*|[,:()|=<>\u2192](?!>)|[-=]>"
    rf"|[0-9]{_ALONE}(?:[0-9]?d(?![a-z\d])|{_AMOUNT})|[+-]{_ALONE}[{_MONEY}]?[0-9]{_AMOUNT}|[{_MONEY}]{_ALONE}[+-]?[0-9]{_AMOUNT}"
    r"|[.!?](?=[\s\"')\]]|\Z)(?<!\bvs\.)(?<!\bapprox\.)(?<!\binc\.)(?<!\bcorp\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bu\.s\.)"
    r"|\n(?![a-z$\d(])|;)"
)
_NEW_LINE = re.compile(r"\n(?=[ \t]*(?:[-+] )?[A-Z])")  # before a capital it ends a sentence, as ";" does
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}  # str.lower() changes the length of some scripts
# As long as the original: typographic minus, dashes, quotes and spaces become their plain forms, markdown a space.
_PLAIN = str.maketrans("\u2212\u2013\u2014\u2019\u00a0\u202f\u2009*`_", "--,'      ")
_NOT_AFTER = dict.fromkeys(
    "the a an its their".split(),
    set("the a an its their of is was are and by to from with for than has or at on in".split()),
) | dict.fromkeys("of from to with by".split(), set("of is are was than from and or has to".split()))
_SLIPS = {(word, following) for word, forbidden in _NOT_AFTER.items() for following in forbidden}
_SLIPS |= {(word, mark) for word in ("the", "a", "an", "its", "their", "of", "from") for mark in (".", ",", ";", "\n")}


def role_of(word: str) -> str | None:
    return _ROLE.get(word)


def is_known(word: str) -> bool:
    return word in _ROLE_OR_NONE


def joins(word: str) -> bool:
    """Whether a word only holds others together: an article, a preposition, a form of "be"."""
    return word in _JOINING


def is_joined(words: Sequence[str], least: float) -> bool:
    """Whether at least one, and at least `least`, words hold a sentence together."""
    if least <= 1:
        return not _JOINING.isdisjoint(words)
    return sum(map(_JOINING.__contains__, words)) >= least


def slips_of(words: Sequence[str]) -> int:
    """How many articles and prepositions stand where no sentence has them: "the of", "from is"."""
    return 0 if _SLIPS.isdisjoint(pairwise(words)) else sum(map(_SLIPS.__contains__, pairwise(words)))


def read(text: str, phrases: Mapping[str, Sequence[tuple[tuple[str, ...], str]]]) -> Text:
    """Cut a text. phrases: by first word, (words, fact) of the financial items a prompt shows, longest first."""
    plain = _NEW_LINE.sub(";", text.translate(_PLAIN))
    parts = _TOKEN.split(plain.lower() if plain.isascii() else plain.translate(_LOWER))  # a gap, a word, …, a gap
    words = parts[1::2]
    roles = list(map(_ROLE_OR_NONE.get, words))
    result = Text(words, roles, list(accumulate(map(len, parts)))[::2], {}, {}, [], [])
    if phrases and not phrases.keys().isdisjoint(words):
        _name_items(result, phrases)
    if "UP" in plain or "DOWN" in plain:
        _mark_stances(result, plain)
    ends = []
    for place in [place for place, role in enumerate(roles) if role in _UNSETTLED]:
        role = roles[place]  # a word before it may have settled it
        if role is None:
            if not words[place][0].isalpha():
                _number(result, place)
        elif role == "end of sentence":
            ends.append(place)
        elif role in _RULES:
            _RULES[role](result, place)
    result.numbers[:] = [place for place in result.numbers if roles[place] == "number"]
    begin = 0
    for end in (*ends, len(words)):
        if end > begin:
            of = roles[begin:end]
            result.sentences.append(Sentence(begin, end, result.starts[begin], words[begin:end], of, set(of)))
        begin = end + 1
    return result


def _name_items(text: Text, phrases: Mapping[str, Sequence[tuple[tuple[str, ...], str]]]) -> None:
    """Give the words of financial items ("net income") the role of one, instead of what else they could mean."""
    words, until = text.words, 0
    for place, word in enumerate(words):
        for phrase, fact in phrases.get(word, ()) if place >= until else ():
            if tuple(words[place : place + len(phrase)]) == phrase:
                until = place + len(phrase)
                text.roles[place:until] = ["financial" if fact else ""] + [""] * (len(phrase) - 1)
                if fact:
                    text.items[place] = fact
                break


_STANCE = re.compile(r"(?:UP|DOWN)\b(?<![A-Z]{2} UP)(?<![A-Z]{2} DOWN)", re.ASCII)
_SIZE = re.compile(r"(?: by| about| roughly)? [+-]?[$\d]", re.ASCII)
_EXPECTING = {"expect", "lean", "predict", "forecast", "so", "therefore", "hence", "go"}


def _mark_stances(text: Text, plain: str) -> None:
    """UP and DOWN in capitals name a side ("speaks for UP", "I expect UP 0.5%"); "is UP 2.3%" is a move."""
    for match in _STANCE.finditer(plain):
        place = bisect_left(text.starts, match.start())
        if place == len(text.words) or text.starts[place] != match.start() or text.words[place] not in ("up", "down"):
            continue
        if not _SIZE.match(plain, match.end()) or text.words[place - 1] in _EXPECTING:
            text.roles[place] = "stance"


# ------------------------------------------------------------------------------- words that depend on their neighbours


def _number(text: Text, place: int) -> None:
    """An amount, or a bare count or year; the days of an average before it ("SMA 20", "SMA (20)")."""
    words, roles = text.words, text.roles
    word = words[place]
    if word[-1] == "d" and word[:-1].isdigit():  # "5d"
        roles[place], text.days[place] = "span", (int(word[:-1]),)
        return
    roles[place] = "number"
    if roles[place + 1 : place + 2] == ["day"]:
        roles[place] = "bare"  # `_span` counts by it
        return
    if len(word) <= 4 and word.isdigit():
        average = place - 2 if place > 1 and roles[place - 1] == "bracket" else place - 1
        if average >= 0 and roles[average] == "average" and average not in text.days:
            text.days[average] = (int(word),)
            roles[place] = "bare"
        elif words[place + 1 : place + 3] == ["of", "the"] or not _is_price(words, place):
            roles[place] = "bare"
            _count(text, place)
    text.numbers.append(place)


_BEFORE_A_PRICE = {"at", "of", "from", "to", "above", "below", "near", "around", "about", "is", "was", "=", "(", ":"}


def _is_price(words: list[str], place: int) -> bool:
    """ "at 175" is a price; "over 20 days", "of 5 sessions" and "from 2019" are not."""
    word = words[place]
    is_year = len(word) == 4 and word[:2] in ("19", "20")
    if not place or words[place - 1] not in _BEFORE_A_PRICE or len(word) < 2 or is_year:
        return False
    following = words[place + 1] if place + 1 < len(words) else "."
    return (
        not following[0].isalpha() or (following in _JOINING and following != "out") or following in ("then", "closed")
    )


def count_at(text: Text, place: int) -> int:
    """The count that a word or number is, as in "5 days", "the third day"; 0 for anything else."""
    if place < 0 or text.roles[place] not in ("bare", "number", "count", "ordinal"):
        return 0
    word = text.words[place]
    return COUNTS.get(word) or (int(word) if word.isdigit() and len(word) < 4 else 0)


def _span(text: Text, place: int) -> None:
    """ "5 days", "two trading sessions", "the past week", "5- and 20-day", "the third day in a row"."""
    words, roles = text.words, text.roles
    unit = _DAYS_IN.get(words[place][:2], 1)
    at = place - 1
    before = roles[at] if place else None
    roles[place] = "span"
    if before == "previous" and unit == 1:
        roles[place], text.days[place] = "ago", (1,)
        return
    if before == "streak" or (place and words[at] in ("trading", "full", "business")):
        at -= 1
    count = count_at(text, at)
    days = [(count or 1) * unit]
    if count:
        roles[at] = ""
        at = _merged(text, at, days, unit)
    elif words[place][-1] == "s" and words[place][-2] != "'":
        roles[place] = ""  # "recent days", "sessions that closed up": how many is not said
        return
    if not _PLURALS.isdisjoint(words[place + 1 : place + 4]):  # "the 1-day, 5-day and 20-day changes"
        at = _merged(text, at, days, 0)
    text.days[place] = tuple(days)
    if count and roles[at - 1] in ("of", "last", "") and _belongs_to_average(text, at, text.days[place]):
        roles[place] = ""


def _belongs_to_average(text: Text, at: int, days: tuple[int, ...]) -> bool:
    """Give an average before place `at` its days: "the average of the last 20 days", "the mean of three closes"."""
    words, roles, least = text.words, text.roles, max(0, at - 6)
    while at > least and roles[at] in ("", "of", "last", "price") and words[at] != "mean":
        at -= 1
    if at in text.days or (roles[at] != "average" and words[at] != "mean"):
        return False
    roles[at], text.days[at] = "average", days
    return True


def _merged(text: Text, at: int, days: list[int], unit: int) -> int:
    """Put what is enumerated before place `at` into `days`; where it begins. unit: days in a count, 0 for spans."""
    roles = text.roles
    while at > 1 and roles[at - 1] in ("and", "comma"):
        other = at - 2 if roles[at - 2] != "comma" else at - 3
        more = [count_at(text, other) * unit] if unit else text.days[other] if roles[other] == "span" else [0]
        if not more[0]:
            break
        days[:0] = more
        roles[other:at] = [""] * (at - other)
        at = other
        while not unit and at > 1 and roles[at - 1] == "":
            at -= 1
    return at


_PLURALS = {"changes", "moves", "returns", "averages", "smas", "mas", "gains", "losses", "horizons", "windows"}


def _of_days(text: Text, place: int) -> None:
    """ "20-day average", "5- and 20-day moving averages", "10-day volatility": the days before it become its own."""
    words, roles = text.words, text.roles
    at = place - 1
    while at >= 0 and (roles[at] == "moving" or words[at] in ("moving", "price", "closing", "daily", "rolling")):
        roles[at] = ""
        at -= 1
    if at >= 0 and roles[at] == "span":
        text.days[place] = text.days[at]
        roles[at] = ""
    elif words[place] in ("mean", "line") or words[at : at + 1] == ["on"]:
        roles[place] = ""  # "mean reversion", "the line", "on average"


def _than(text: Text, place: int) -> None:
    """ "higher than" compares; "higher" alone is a direction."""
    side = _COMPARING.get(text.words[place - 1]) if place else None
    if text.words[place - 1] in ("more", "less") and not _OF_AN_AMOUNT.isdisjoint(text.words[place + 1 : place + 2]):
        side = None  # "more than two dollars below", "less than a quarter of the gain"
    if side and {"will", "should", "would"}.isdisjoint(text.words[max(0, place - 5) : place]):
        text.roles[place - 1], text.roles[place] = "", side


def _back(text: Text, place: int) -> None:
    """ "two days ago", "three weeks earlier"; "pulled back" is a move."""
    words, roles = text.words, text.roles
    word, before = words[place], words[place - 1] if place else ""
    roles[place] = ""
    if word == "back" and before in _GIVES_BACK:
        roles[place - 1 : place + 1] = ["", "back down"]
    elif place and roles[place - 1] == "span":
        roles[place], text.days[place] = "ago", text.days[place - 1]
        roles[place - 1] = ""
    elif word == "off" and before in ("sell", "sells", "sold", "selling"):
        roles[place] = "down"
    elif word == "taking" and before == "profit":
        roles[place] = "back down"
        roles[place - 1] = ""
    elif word == "before":
        roles[place] = "as"


def _count(text: Text, place: int) -> None:
    """ "1.5% in five days and 3.9% in twenty": a count after "in" with nothing to count is of days."""
    words = text.words
    following = words[place + 1] if place + 1 < len(words) else "."
    if words[place - 1] in ("in", "over", "past", "last") and (following in _JOINING or not following[0].isalpha()):
        n = count_at(text, place)
        if n > 1 and any(role == "span" for role in text.roles[max(0, place - 12) : place]):
            text.roles[place], text.days[place] = "span", (n,)


def _look(text: Text, place: int) -> None:
    """ "I look for a rise" is an outlook, "looking at the data" is none."""
    text.roles[place] = "firm" if text.words[place + 1 : place + 2] == ["for"] else ""


def _end(text: Text, place: int) -> None:
    """ "expect it to end lower" ends nothing."""
    if text.words[place + 1 : place + 2] in (["higher"], ["lower"], ["up"], ["down"], ["above"], ["below"]):
        text.roles[place] = ""


def _over(text: Text, place: int) -> None:
    """ "4% over the 20-day average" compares, "over the last 20 days" does not."""
    text.roles[place] = ""
    for at in range(place + 1, min(len(text.words), place + 6)):
        role = text.roles[at]
        if role in ("open", "average") or (role == "close" and text.words[at] == "close") or text.words[at][0] == "$":
            text.roles[place] = "above"
            return
        if role in ("last", "day", "and", "end of sentence") or (role is None and text.words[at][0].isalpha()):
            if role == "day" and "average" in text.roles[at + 1 : at + 4]:
                continue
            return


def _next(text: Text, place: int) -> None:
    """ "the next day" is to come, "small next to the fall" compares."""
    text.roles[place] = "" if text.words[place + 1 : place + 2] == ["to"] else "firm"


def _shade(text: Text, place: int) -> None:
    """ "a green day" is one day, "the picture is red" a mood."""
    one = text.words[place + 1 : place + 2] in (["day"], ["days"], ["session"], ["sessions"], ["close"], ["candle"])
    text.roles[place] = "" if one else "positive" if text.words[place] == "green" else "negative"


def _favour(text: Text, place: int) -> None:
    """ "I favour a rise" is an outlook, "the data favour a rise" a reading."""
    text.roles[place] = "firm" if place and text.words[place - 1] in ("i", "we") else "so"


def _short(text: Text, place: int) -> None:
    """ "just short of its 20-day average" is below it."""
    text.roles[place] = "below" if text.words[place + 1 : place + 2] == ["of"] else ""


def _cool(text: Text, place: int) -> None:
    text.roles[place] = "back down" if text.words[place + 1 : place + 2] in (["off"], ["down"]) else ""


def _streak(text: Text, place: int) -> None:
    """ "the third day running" counts days, "momentum is running out" does not."""
    if text.words[place] == "straight" and text.words[place + 1 : place + 2] in (["away"], ["to"], ["back"], ["into"]):
        text.roles[place] = ""
    if text.words[place] == "running" and (not place or "day" not in text.words[place - 1]):
        text.roles[place] = ""


def _since(text: Text, place: int) -> None:
    """ "since the start of the year" is a time, "since it rose" a reason."""
    is_time = "day" in text.roles[place + 2 : place + 6] and "change" not in text.roles[place + 2 : place + 7]
    text.roles[place] = "" if is_time else "so"


def _even(text: Text, place: int) -> None:
    """ "even though", "even if" concede; "even higher" does not."""
    text.roles[place] = (
        "contrast" if text.words[place + 1 : place + 2] in (["though"], ["if"], ["so"], ["after"]) else ""
    )


def _yesterday(text: Text, place: int) -> None:
    text.roles[place], text.days[place] = "ago", (1,)


def _close(text: Text, place: int) -> None:
    """ "previous close" names the day too; "last close" may be this one or the one before."""
    before = text.words[place - 1] if place else ""
    if before in ("previous", "prior", "preceding", "last", "past") and text.words[place] != "closes":
        text.roles[place - 1] = "ago"
        text.days[place - 1] = (0, 1) if before in ("last", "past") else (1,)
    elif text.words[place] == "closes" or text.words[place + 1 : place + 2] == ["prices"]:
        count = count_at(text, place - 1)
        if count and _belongs_to_average(text, place - 2, (count,)):
            text.roles[place - 1] = ""


def _up_or_down(text: Text, place: int) -> None:
    """ "gave up 2%" is a fall, "sellers showed up" is no move."""
    if text.words[place] in ("up", "down") and place:
        before = text.words[place - 1]
        if before in _NO_MOVE:
            text.roles[place] = ""
        elif before in _GIVE and text.words[place] == "up":
            text.roles[place] = "down"
    elif text.words[place] == "dip" and text.words[place + 1 : place + 2] in (["buyers"], ["buying"]):
        text.roles[place] = ""
    elif text.words[place].startswith("add") and text.words[place + 1 : place + 2] == ["to"]:
        text.roles[place] = ""  # "added to the loss"


_OF_AN_AMOUNT = {*COUNTS, "most", "any", "a", "an", "half", "twice", "double", "once", "enough"}
_COMPARING = dict.fromkeys("higher more greater larger bigger better".split(), "above")
_COMPARING |= dict.fromkeys("lower less smaller worse".split(), "below")
_GIVES_BACK = {"pull", "pulls", "pulled", "pulling", "give", "gives", "giving", "gave", "given"}
_GIVE = {"give", "gives", "gave", "given", "giving"}
_NO_MOVE = set(
    "dry dries dried show shows showed ended ends end wound make makes set sets catch follow built build sum sums"
    " summed add adds wrap wrapped back backs backed picked pick come came calm calmed settle settled slow slowed"
    " slowing break breaks line lines lined hold holds held holding shape shapes shaping prop props"
    " propped open opens opened".split()
)
_RULES = {
    "up": _up_or_down,
    "down": _up_or_down,
    "day": _span,
    "average": _of_days,
    "volatility": _of_days,
    "than": _than,
    "back": _back,
    "yesterday": _yesterday,
    "close": _close,
    "count": _count,
    "look": _look,
    "end": _end,
    "even": _even,
    "since": _since,
    "streak": _streak,
    "over": _over,
    "next": _next,
    "shade": _shade,
    "favour": _favour,
    "cool": _cool,
    "short": _short,
}
_UNSETTLED = {None, "end of sentence", *_RULES}
