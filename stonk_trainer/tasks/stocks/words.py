"""The words a reasoning is read by: a lexicon, and from text to sentences of tokens.

A token is a number or a word with a role; other words are only counted, as English of this kind or not. Time is linear.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple


class Token(NamedTuple):
    """A word with a role, or a number.

    kind: a role of `_ROLES`, or one of: "number" (it states an amount), "bare" (a small count, a year), "span" (n
    trading days), "ago" (n trading days back), "financial" (text is the fact's name). index: its place among the
    sentence's words, numbers and marks. n: the days a span, an average or a volatility names, several for "5- and
    20-day". start and end count from the start of the sentence.
    """

    kind: str
    text: str
    start: int
    end: int
    index: int
    n: tuple[int, ...] = ()


class Sentence(NamedTuple):
    """start: its place in the text. text: in lower case. kinds: of its tokens. words: with marks, and "#" for a number.
    unknown: how many words are not in the lexicon."""

    start: int
    text: str
    tokens: list[Token]
    kinds: set[str]
    words: list[str]
    unknown: int


def _verbs(stems: str) -> str:
    forms = []
    for stem in stems.split():
        if stem[-1] == "y" and stem[-2] not in "aeo":
            forms += [stem, stem[:-1] + "ies", stem[:-1] + "ied", stem + "ing"]
        else:
            base = stem.removesuffix("e")
            ending = stem[-1] + stem[-1] if stem in ("drop", "slip", "dip", "stop", "cap", "slim") else stem[-1]
            base = stem[:-1] + ending if len(ending) > 1 else base
            forms += [stem, stem + ("es" if stem[-1] in "shx" else "s"), base + "ed", base + "ing"]
    return " ".join(forms)


_ROLES = {
    # what a number can be of
    "close": "close closed closes closing settle settled settles settling",
    "open": "open opened opens opening",
    "average": "average averages sma smas ma mas mean line averaged averaging",
    "volatility": "volatility",
    "volume": "volume volumes turnover",
    "price": "price prices priced trades traded trading quoted reached reaching hit hitting",
    "change": "change changes changed move moves moved return returns returned returning performance",
    # directions
    "up": _verbs("gain climb jump advance increase rally surge add soar appreciate")
    + " rise rises rose risen rising grow grows grew grown growing up higher uptick upswing upside plus",
    "down": _verbs("drop decline slide slip decrease tumble plunge dip slump crash sink")
    + " fall falls fell fallen falling slid lose loses lost losing loss losses shed sheds shedding sank sunk down lower"
    " selloff downtick downside minus eased eases easing",
    "positive": "bullish bullishly positive positively upward upwards uptrend upbeat green",
    "negative": "bearish bearishly negative negatively downward downwards downtrend red",
    "strength": "strength",
    "weakness": "weakness",
    # a past move when a number measures it, else one that is expected
    "back up": _verbs("rebound bounce recover") + " recovery recoveries",
    "back down": _verbs("retreat") + " pullback pullbacks profittaking correction corrections retracement",
    # a move read as having gone too far
    "turn up": "oversold cheap bargain undervalued",
    "turn down": "overbought overextended overheated overvalued frothy",
    "room": "room overdue",
    "buy": "buy",
    "sell": "sell avoid",
    "on": "on",
    "reversal": "reversal reversals",
    "turn": "breather unsustainable excessive"
    " overdone reversion stretched exhausted exhaustion overreaction overreacted revert reverts reverting",
    "above": "above exceeds exceed exceeded exceeding",
    "below": "below beneath under",
    "high": "high highs highest peak peaks peaked",
    "low": "low lows lowest trough bottom",
    "record": "record records alltime ever historic historical lifetime unprecedented doubled tripled"
    " halved year years decade decades",
    "superlative": "best worst strongest weakest biggest largest sharpest steepest",
    # the writer's own outlook
    "firm": "will would should going expect expects expecting expected likely predict predicts predicting"
    " prediction forecast"
    " forecasts forecasting tomorrow anticipate anticipates anticipating outlook lean leaning leans bet shall poised"
    " heading headed i'd i'll it'll i'm am due think believe say next call verdict ahead answer tend tends",
    "weak": "may might could can risk risks possible possibly perhaps maybe",
    "own": "confidence confident probability chance chances odds",
    "target": "target targets",
    # other people, and other things than the share's price, that numbers are of
    "others": "analysts analyst consensus experts brokers economists forecasters",
    "other": "revenue revenues sales earnings profit profits income eps dividend dividends margin margins debt cash"
    " index sector industry rsi macd beta inflation gdp oil yield guidance orders deliveries rival rivals competitor"
    " competitors peers nasdaq dow s&p market markets subscribers users exports bookings backlog inventory shipments",
    "end": _verbs("end stop reverse fade halt pause stall offset limit cap absorb exhaust outweigh")
    + " slows slowed slowing temporary brief shortlived unwind bought",
    "not": "whether not no never without unlikely don't doesn't didn't isn't wasn't hasn't won't can't cannot"
    " couldn't wouldn't"
    " shouldn't haven't aren't weren't neither nor hardly fails failed fail failing rather lacks lack lacking",
    "contrast": "but although though despite however while yet whereas nevertheless nonetheless albeit"
    " notwithstanding regardless outweigh outweighs",
    "so": "so because since therefore thus hence suggests suggest suggesting suggested show shows showing showed"
    " indicates indicate indicating indicated signals signal signalling signaling points pointing supports support"
    " supporting supported supportive implies imply implying confirms confirm confirming reflects reflecting means"
    " meaning reason reasons momentum trend trends trending strong stronger weak weaker steady"
    " steadily continue continues continued continuing persist persists"
    " pressure tells argues argue favours favors favour favor"
    " demonstrates demonstrating reveals leaves leaving makes keeps keeping evidence hints hinting consistent",
    # how words join
    "and": "and then or",
    "as": "as after following when where which that given with",
    "to": "to",
    "from": "from",
    "of": "of",
    "at": "at near around about roughly approximately nearly almost just is was are were stands stood sits sat by"
    " has been"
    " remains being be currently now only stand",
    "than": "than versus vs compared against",
    "previous": "previous prior preceding",
    "last": "last past latest recent",
    "day": "day days session sessions week weeks month months fortnight day's session's week's",
    "today": "today daily intraday today's",
    "yesterday": "yesterday yesterday's",
    "back": "ago earlier back before taking off",
    "count": "one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty sixty",
    "ordinal": "second third fourth fifth sixth seventh",
    "streak": "consecutive straight row running successive",
    "moving": "simple exponential",
}
# Articles, prepositions and common verbs without a role: with those above they hold a sentence together.
_GRAMMAR = set(
    "a about across again against all along also amid an and any are as at be been between both but by did do "
    "does during each for from had has have having he her his how i if in into is it its least less more most my "
    "not of off on once onto or our out over per she so some such than the their there these they this those "
    "through to too toward towards under until upon very via was we were what whether who whose why will with "
    "within would you".split()
)
_KNOWN = set(
    "able accelerate accelerating acceleration action activity actually additionally already always among amount "
    "another anything apart appear appears appetite area assets attempt away bad balance balanced band barely "
    "base based basically basis bear bears beat beats began begin begun behind better beyond bias bid big bigger "
    "billion bit boost boosted boosts break breakout breaks broad broke broken build building builds built bull "
    "bulls business buyer buyers buying calls calm came case catalyst catalysts caution cautious ceiling cent "
    "cents certain certainly chart choppy clear clearly closer combined come comes comfortable comfortably coming "
    "companies company company's compare comparing comparison concern concerns conclude conclusion consider "
    "considering consistently continuation control controlled couple cross crossed crosses crossing current data "
    "demand different direction doing dollar dollars dominant dominate dominated dominates double doubt doubts "
    "drift drifted drifting drive driven drives early ease edged edging either enough entire equity estimates "
    "even every everyone everything ex exactly except expensive explain explained explains extended extending "
    "extends fair fairly far fast fear feel feels few figure figures finally financial financials find finds "
    "finish finished finishing firm firmly first firstly flat floor flow follow followed follows followthrough "
    "force forces found fragile fundamental fundamentals further furthermore gap gave general get gets give gives "
    "giving go goes good got gradual gradually greed grinding gross growth half happen happened happens headline "
    "headlines headwind headwinds healthy heavy held help helped helps here here's history hold holding holds "
    "hopeful i've im important inched inconclusive instead intact interest investor investors it's ive keep kept "
    "key know known large largely larger late lately later lead leads leave led left let let's level levels "
    "liabilities lift lifted lifts light lines long look looked looking looks lot made main mainly major make "
    "making many mark markedly market's matter matters meanwhile medium mild million minor miss mixed modest "
    "modestly mood moreover mostly move's much must narrow nearby need needs net neutral new news nobody noise "
    "none normal note noted notes nothing noting nudged number numbers offer offers often ok okay old ongoing "
    "operating optimism optimistic other ought overall pair part participation partly parts pattern patterns "
    "percent percentage period persistent pessimistic picture placed point position positioned power precisely "
    "prefer pretty price's print printed prints probably product products pull pulled pulling pulls push pushed "
    "pushes put puts quarter quick quickly quiet quietly quite ran random range ranges rarely ratio reading "
    "readings really recently reclaim reclaimed reclaiming reflect regain regained rejected rejection relative "
    "remain remained report reports resistance results robust run runs said same saw saying says secondly see "
    "seem seems seen sees seller sellers selling sentiment setup several share share's shares sharp sharply sheet "
    "short shown side sides similar simply sitting size slight slightly slow slowing small smaller snap snapped "
    "snapping sold solid something sometimes somewhat soon stable start started starts stay stayed staying stays "
    "steam still stock stock's stocks streak stretch succeed sudden suddenly summary supply sure sustained swing "
    "swings tailwind tailwinds take taken takes tape technical technically tell term territory test tested "
    "testing tests that's there's thin ticked tight time times together told tone took top total touch touches "
    "trader traders tries try trying turn turned turning turns twice typical uncertain uncertainty unless "
    "unstable unsure unusual usual usually valuation value values view volatile vulnerable want weigh weighing "
    "weight well went whole wide winning wins wobble won work working works worried worries worry worse worth yes "
    "zero zone".split()
)
_ROLE = {word: role for role, words in reversed(_ROLES.items()) for word in words.split()}
_AMOUNT_OF_DAYS = {w: n for n, w in enumerate(_ROLES["count"].split()[:12], start=1)}
_AMOUNT_OF_DAYS |= {"fifteen": 15, "twenty": 20, "thirty": 30, "sixty": 60}
_ORDINALS = {word: n for n, word in enumerate(_ROLES["ordinal"].split(), start=2)}

LONG = 400  # characters; what was read of a longer sentence is not kept
SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "mn": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9, "b": 1e9}
SCALES |= {"trillion": 1e12, "t": 1e12}
_TOKEN = re.compile(
    r"[a-z][a-z'/&-]*"
    r"|(?:(?<![\w.$\u20ac\u00a3\u00a5:])|(?<=\bsma)|(?<=\bma))"
    r"(?:[+-]?[$\u20ac\u00a3\u00a5]?[+-]?[0-9][0-9,]*(?:\.[0-9]+)?(?<!,)(?!\d|[:/]\d|-\d|\.\d|[^\W_a-z])"
    rf"(?:[ -]?(?:{'|'.join(SCALES)})(?![a-z]))?"
    r"(?: ?(?:%|(?:percent(?:age points?)?|pct|dollars?|usd|x|times|cents?|bps|basis points?)(?![a-z])))?)"
    r"|[-=]>|[,:()|=<>\u2192]"
)
# A line that goes on in lower case, with a number or in a bracket is the same sentence; "vs." and "approx." end none.
_END = re.compile(r"[.!?]+(?=[\s\"')\]]|\Z)|\n(?![a-z$\d(])|;")
_ABBREVIATIONS = ("vs", "approx", "inc", "corp", "e.g", "i.e", "u.s", "no")
_LOWER = {
    code: code + 32 for code in range(ord("A"), ord("Z") + 1)
}  # str.lower() would change the length of some scripts
# As long as the original: typographic minus, dashes, quotes and spaces become their plain forms, markdown a space.
_PLAIN = str.maketrans("\u2212\u2013\u2014\u2019\u00a0\u202f\u2009*`_", "--,'      ")
_NOT_AFTER = dict.fromkeys(
    "the a an its their".split(),
    set("the a an its their of is was are and by to from with for than has or at on in".split()),
) | dict.fromkeys("of from to with by".split(), set("of is are was than from and or has to".split()))
_SLIPS = {(word, following) for word, forbidden in _NOT_AFTER.items() for following in forbidden}
_MARKS = {
    "<": "below",
    ">": "above",
    "\u2192": "to",
    "->": "to",
    "=>": "to",
    "(": "bracket",
    ")": "bracket",
    ":": "colon",
    "=": "colon",
}
_MARKS |= dict.fromkeys(",;|", "comma")
_ROLE_OR_NONE = dict.fromkeys(_KNOWN | _GRAMMAR, "") | _ROLE | _MARKS
_GRAMMAR |= {word for role in ("at", "of", "to", "from", "and", "as", "than") for word in _ROLES[role].split()} | {
    "<",
    ">",
}
_PER_UNIT = {"week": 5, "month": 20, "fortnight": 10}
_PROMOTES = {"at", "of", "from", "to", "above", "below", "near", "around", "about", "is", "was", "=", "(", ":"}


def role_of(word: str) -> str | None:
    return _ROLE.get(word)


def joins(word: str) -> bool:
    """Whether a word only holds others together: an article, a preposition, a form of "be"."""
    return word in _GRAMMAR


def grammar_of(words: Sequence[str]) -> int:
    """How many words hold a sentence together: articles, prepositions, verbs without a meaning of their own."""
    return sum(map(_GRAMMAR.__contains__, words))


def slips_of(words: Sequence[str]) -> int:
    """How many articles and prepositions stand where no sentence has them: "the of", "from is"."""
    return sum(map(_SLIPS.__contains__, zip(words, words[1:], strict=False)))


def sentences(text: str, phrases: Mapping[str, Sequence[tuple[str, str]]]) -> list[Sentence]:
    """The sentences of `text`. phrases: by first word, (words, name) of financial items, longest first."""
    plain = text.translate(_PLAIN)
    lower = plain.lower() if plain.isascii() else plain.translate(_LOWER)
    found, start = [], 0
    for match in _END.finditer(plain):
        end = match.start()
        if lower[end] == "." and lower.endswith(_ABBREVIATIONS, start, end) and not lower[max(0, end - 4)].isalpha():
            continue
        if end > start:
            found.append((start, lower[start:end]))
        start = match.end()
    if start < len(text):
        found.append((start, lower[start:]))
    return [_placed(_recalled(sentence), start, phrases) for start, sentence in found]


_met_once: set[int] = set()


def _recalled(text: str) -> Sentence:
    """Completions of one prompt share many sentences: they are kept from the second time on. Keeping each at once would
    give the garbage collector more work than it saves; a long one is rare, and would fill the memory."""
    key = hash(text)
    if key in _met_once and len(text) < LONG:
        return _kept_sentence(text)
    if len(_met_once) >= 65_536:
        _met_once.clear()
    _met_once.add(key)
    return _sentence(text)


def _sentence(text: str) -> Sentence:
    words: list[str] = []
    tokens: list[Token] = []
    unknown = 0
    new_token, role_or_none = tuple.__new__, _ROLE_OR_NONE.get  # half the time of Token(…)
    for index, match in enumerate(_TOKEN.finditer(text)):
        word = match[0]
        words.append(word)
        role = role_or_none(word)
        if role == "":  # an English word without a role
            continue
        start = match.start()
        end = start + len(word)
        if role is not None:
            token = new_token(Token, (role, word, start, end, index, ()))
            if role in _ROLE_RULES:
                _ROLE_RULES[role](tokens, token, words[index - 1] if index else "")
            else:
                tokens.append(token)
        elif not "a" <= word[0] <= "z":
            _add_number(tokens, Token("number", word, start, end, index), words[index - 1] if index else "", text)
            words[index] = "#"
        elif word.isalpha():
            unknown += 1
        else:
            unknown += not _add_compound(tokens, Token("", word, start, end, index), words[index - 1] if index else "")
    kinds = {token[0] for token in tokens}
    if "span" in kinds and not kinds.isdisjoint(("count", "bare")):
        _elided_days(tokens, words)
    return Sentence(0, text, tokens, kinds, words, unknown)


_kept_sentence = lru_cache(maxsize=4096)(_sentence)


def _elided_days(tokens: list[Token], words: list[str]) -> None:
    """ "2% in five days and 3% in twenty": a count after a span, of days too."""
    seen = False
    for i, token in enumerate(tokens):
        seen = seen or token.kind == "span"
        n = _AMOUNT_OF_DAYS.get(token.text) or (_integer(token.text) if token.kind == "bare" else 0)
        if seen and n > 1 and words[token.index - 1] in ("in", "over") and token.kind in ("count", "bare"):
            tokens[i] = token._replace(kind="span", n=(n,))


def _placed(sentence: Sentence, start: int, phrases: Mapping[str, Sequence[tuple[str, str]]]) -> Sentence:
    """The sentence at its place, with the financial items it names instead of what else their words could mean."""
    _, text, tokens, kinds, words, unknown = sentence
    if not phrases or phrases.keys().isdisjoint(words):
        return tuple.__new__(Sentence, (start, text, tokens, kinds, words, unknown))
    items, until = [], 0
    for index, match in enumerate(_TOKEN.finditer(text)):
        at = match.start()
        item = next((i for i in phrases.get(match[0], ()) if at >= until and _stands(text, i[0], at)), None)
        if item:
            until = at + len(item[0])
            items.append(Token("financial", item[1], at, until, index))
    if items:
        rest = [token for token in tokens if not any(item.start <= token.start < item.end for item in items)]
        tokens = sorted(rest + items, key=lambda token: token.start)
        kinds = {token.kind for token in tokens}
    return Sentence(start, text, tokens, kinds, words, unknown)


def _add_compound(tokens: list[Token], token: Token, before: str) -> bool:
    """ "trader's", "mean-reverting", "all-time", "5-day-average": its parts, as far as they are known; whether one"
    " is."""
    word = token.text.rstrip("'/&-")
    joined = word.removesuffix("'s").replace("-", "")
    parts = [joined] if joined in _ROLE_OR_NONE else word.split("-")
    for part in parts:
        role = _ROLE_OR_NONE.get(part)
        if role:
            _ROLE_RULES.get(role, _append)(tokens, token._replace(kind=role, text=part), before)
        before = part
    return any(part in _ROLE_OR_NONE for part in parts)


def _add_number(tokens: list[Token], token: Token, before: str, text: str) -> None:
    if token.text.isdigit() and len(token.text) <= 4:  # by itself a count or a year: "15", "2023"
        last = tokens[-1] if tokens else None
        if last and last.kind == "bracket" and len(tokens) > 1 and token.index - tokens[-2].index == 2:
            last = tokens[-2]
        if last and last.kind == "average" and not last.n and token.index - last.index <= 2:
            tokens[tokens.index(last, -2)] = last._replace(
                n=(_integer(token.text),), end=token.end
            )  # "SMA-20", "SMA (20)"
            return
        if before not in _PROMOTES or not _stands_alone(text, token.end, token.text):
            token = token._replace(kind="bare")
    tokens.append(token)


def _stands(text: str, phrase: str, at: int) -> bool:
    return text.startswith(phrase, at) and not text[at + len(phrase) : at + len(phrase) + 1].isalnum()


def _integer(word: str) -> int:
    return int(word) if word.isdigit() and len(word) < 4 else 0


def _stands_alone(text: str, end: int, word: str) -> bool:
    """ "at 175" is a price; "over 20 days", "of 5 sessions" and "from 2019" are not."""
    if len(word) < 2 or (len(word) == 4 and word[:2] in ("19", "20")):
        return False
    following = re.match(r"[ -]?([a-z]*)", text[end : end + 16])[1]
    return not following or (following in _GRAMMAR and following != "out") or following in ("then", "closed")


def _append(tokens: list[Token], token: Token, before: str) -> None:
    tokens.append(token)


def _day(tokens: list[Token], token: Token, before: str) -> None:
    """ "5 days", "two trading sessions", "the past week", "5- and 20-day", "the third day in a row"."""
    if tokens and tokens[-1].text in ("trading", "consecutive", "straight", "running") and before == tokens[-1].text:
        tokens.pop()
    unit = next((n for name, n in _PER_UNIT.items() if token.text.startswith(name)), 1)
    last = tokens[-1] if tokens else None
    if last and last.kind == "previous" and token.index - last.index == 1 and unit == 1:
        tokens[-1] = token._replace(kind="ago", start=last.start, n=(1,))
        return
    n, start = 1, token.start
    last = tokens[-1] if tokens else None
    if last and last.kind in ("bare", "count", "ordinal") and token.index - last.index <= 2:
        n = _AMOUNT_OF_DAYS.get(last.text) or _ORDINALS.get(last.text) or _integer(last.text) or 1
        start = tokens.pop().start
    days = (n * unit,)
    while (
        len(tokens) > 1 and tokens[-1].kind in ("and", "comma") and tokens[-2].kind in ("span", "bare")
    ):  # "5- and 20-day"
        other = tokens[-2]
        if tokens[-1].index - other.index > 2 or not (other.n or _integer(other.text)):
            break
        days = (*(other.n or (_integer(other.text) * unit,)), *days)
        start = other.start
        del tokens[-2:]
    tokens.append(token._replace(kind="span", start=start, n=days))
    average = next(
        (i for i in range(len(tokens) - 2, max(-1, len(tokens) - 5), -1) if tokens[i].kind == "average"), None
    )
    if (
        average is not None
        and not tokens[average].n
        and all(t.kind in ("of", "last") for t in tokens[average + 1 : -1])
    ):
        tokens[average] = tokens[average]._replace(n=days)  # "the average of the last 20 days"
        tokens.pop()


def _of_days(tokens: list[Token], token: Token, before: str) -> None:
    """ "20-day average", "SMA 20", "20-day volatility": the days before it become its own."""
    while tokens and tokens[-1].kind == "moving":
        tokens.pop()
    if token.kind == "average" and token.text in ("mean", "line") and not (tokens and tokens[-1].kind == "span"):
        return  # "mean reversion", "this means"
    if tokens and tokens[-1].kind == "span" and token.index - tokens[-1].index <= 3:
        last = tokens.pop()
        if len(tokens) > 1 and tokens[-1].kind in ("and", "comma") and tokens[-2].kind == "span":
            last = last._replace(start=tokens[-2].start, n=(*tokens[-2].n, *last.n))
            del tokens[-2:]
        tokens.append(token._replace(start=last.start, n=last.n))
    elif tokens and tokens[-1].kind == "today" and token.index - tokens[-1].index == 1:
        tokens.pop()  # "daily volatility"
        tokens.append(token)
    else:
        tokens.append(token)


def _than(tokens: list[Token], token: Token, before: str) -> None:
    """ "higher than" compares; "higher" alone is a direction."""
    side = {"higher": "above", "more": "above", "greater": "above", "lower": "below", "less": "below"}.get(before)
    if side and tokens and tokens[-1].text == before:
        tokens.pop()
    tokens.append(token._replace(kind=side) if side else token)


def _back(tokens: list[Token], token: Token, before: str) -> None:
    """ "two days ago", "three weeks earlier"; "pulled back" is a move."""
    last = tokens[-1] if tokens else None
    if token.text == "back" and before in _GIVES_BACK:
        tokens.append(token._replace(kind="back down"))
    elif last and last.kind == "span" and token.index - last.index == 1:
        tokens[-1] = last._replace(kind="ago", end=token.end)
    elif token.text == "off" and before in ("sell", "sells", "sold", "selling"):
        tokens.append(token._replace(kind="down"))
    elif token.text == "taking" and before == "profit":
        tokens[-1] = last._replace(kind="back down", end=token.end)
    elif token.text == "before":
        tokens.append(token._replace(kind="as"))


def _yesterday(tokens: list[Token], token: Token, before: str) -> None:
    tokens.append(token._replace(kind="ago", n=(1,)))


def _close(tokens: list[Token], token: Token, before: str) -> None:
    """ "previous close" names the day too; "last close" may be this one or the one before."""
    last = tokens[-1] if tokens else None
    if (
        last
        and last.kind in ("previous", "last")
        and token.index - last.index <= 2
        and last.text not in ("latest", "recent")
        and token.text != "closes"
    ):
        tokens[-1] = last._replace(kind="ago", n=(1,) if last.kind == "previous" else (0, 1))
    tokens.append(token)


def _up_or_down(tokens: list[Token], token: Token, before: str) -> None:
    """ "gave up 2%" is a fall, "sellers showed up" is no move."""
    if token.text == "up" and before in _GIVE:
        tokens.append(token._replace(kind="down"))
    elif token.text not in ("up", "down") or before not in _NO_MOVE:
        tokens.append(token)


def _on(tokens: list[Token], token: Token, before: str) -> None:
    if before in ("put", "puts", "putting", "tacked", "piled"):
        tokens.append(token._replace(kind="up"))


_GIVES_BACK = {"pull", "pulls", "pulled", "pulling", "give", "gives", "giving"}
_GIVE = {"give", "gives", "gave", "given", "giving"}
_NO_MOVE = set(
    " dry dries dried show shows showed ended ends end wound made make"
    " makes set sets catch follow built build sum sums summed add adds"
    " wrap wrapped back backs backed picked pick come came calm calmed settle settled slow slowed slowing break"
    " breaks".split()
)
_ROLE_RULES = {
    "up": _up_or_down,
    "down": _up_or_down,
    "on": _on,
    "day": _day,
    "average": _of_days,
    "volatility": _of_days,
    "than": _than,
    "back": _back,
    "yesterday": _yesterday,
    "close": _close,
}
