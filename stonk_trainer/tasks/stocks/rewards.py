"""Rewards of the stocks task: pure scoring of one completion, and the same scoring as TRL reward functions.

    accuracy     the direction is right, or the stated probability is (a proper score)
    magnitude    the expected move is near the real one, in units of the ticker's recent volatility
    data_usage   the numbers in the reasoning are facts of the prompt
    coherence    the evidence cited supports the answer given

Every component lies in [0, 1]. A completion without one readable answer earns 0 in all of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from stonk_trainer.tasks.stocks.answer import Forecast, Unreadable, parse
from stonk_trainer.tasks.stocks.book import Book, book_of
from stonk_trainer.tasks.stocks.claims import Claim, claims_of
from stonk_trainer.tasks.stocks.facts import facts_from_json
from stonk_trainer.tasks.stocks.reasoning import Weighing, weigh
from stonk_trainer.tasks.stocks.words import read

COMPONENTS = ("accuracy", "magnitude", "data_usage", "coherence")
ACCURACIES = ("direction", "calibrated")

DEFAULT_VOLATILITY = 0.02  # daily, as a fraction: about that of a large US share; used when the row shows no volatility
ENOUGH_FACTS = 3  # distinct facts cited for full data_usage
LEAST_WORDS = 8  # a shorter reasoning has no substance
AT_FAULT = 0.2  # what a reasoning with a fault keeps of data_usage and coherence, at most
# Characters, about 6,000 tokens; no claim of a longer one is read, so that a runaway text costs no time.
LONGEST_REASONING = 25_000


def score(
    completion: str,
    row: Mapping,
    *,
    accuracy: str = "direction",
    skew_aware: bool = False,
    weights: Mapping[str, float] | None = None,
) -> dict:
    """Score one completion and say why.

    row: label ("UP"/"DOWN"), next_return (fraction), facts (JSON of `facts_to_json`), base_rate_up (in [0, 1]; only
    read when skew_aware). weights: by component; those left out weigh 0. None: `total` is the mean of the four.

    Returns each component, total (the weighted sum), forecast (direction, confidence, move; None when unreadable),
    problem (why unreadable, else None), claims (text, fact, grounded, why, and start and end in the completion,
    None where it cannot be located), grounded (number of distinct grounded
    facts), reasons (one text per component).
    Raises ValueError for an unknown accuracy or component, and for a row without a key or with a malformed value.
    """
    _check(accuracy, weights or ())
    _check_row(row, skew_aware)
    forecast, reading = _read(completion, row["facts"])
    if isinstance(forecast, Unreadable):
        parts = dict.fromkeys(COMPONENTS, (0.0, f"no readable answer: {forecast.reason}"))
    else:
        parts = {
            "accuracy": _accuracy(forecast, row, accuracy, skew_aware),
            "magnitude": _magnitude(forecast, row),
            "data_usage": _data_usage(reading),
            "coherence": _coherence(reading),
        }
    weights = dict.fromkeys(COMPONENTS, 1 / len(COMPONENTS)) if weights is None else weights
    return {
        **{name: value for name, (value, _) in parts.items()},
        "total": sum(weight * parts[name][0] for name, weight in weights.items()),
        **read_answer(completion, row["facts"]),
        "reasons": {name: reason for name, (_, reason) in parts.items()},
    }


def read_answer(completion: str, facts: str) -> dict:
    """What one completion says, whatever came after: forecast, problem, claims and grounded, as `score` returns them.

    facts: JSON of `facts_to_json`. Raises ValueError when it is something else.
    """
    forecast, reading = _read(completion, facts)
    given = forecast if isinstance(forecast, Forecast) else None
    return {
        "forecast": {key: getattr(forecast, key) for key in ("direction", "confidence", "move")} if given else None,
        "problem": forecast.reason if isinstance(forecast, Unreadable) else None,
        "claims": _located(completion, given.reasoning, reading.claims) if given else [],
        "grounded": reading.grounded,
    }


def claims_in(text: str, facts: str) -> list[dict]:
    """The claims of any text, whether or not a forecast can be read from it: as those of `read_answer`."""
    book, _ = _shown(facts)
    text = text[:LONGEST_REASONING]
    return _located(text, text, claims_of(text, read(text, book.phrases), book))


def _located(completion: str, reasoning: str, claims: Sequence[Claim]) -> list[dict]:
    """Claims with `start` and `end` in the completion: the reasoning as a whole, else the claim's own line, is looked
    for in it; None where markdown was taken out of that line."""
    whole = completion.find(reasoning)
    found, line_start, at = [], 0, 0
    for claim in claims:
        offset: int | None = whole
        if whole < 0:
            line_start = reasoning.rfind("\n", 0, claim.start) + 1
            line = reasoning[line_start : reasoning.find("\n", claim.end) if "\n" in reasoning[claim.end :] else None]
            place = completion.find(line, at)
            at = max(at, place)
            offset = place - line_start if place >= 0 else None
        start, end = (None, None) if offset is None else (claim.start + offset, claim.end + offset)
        found.append(
            {
                "text": claim.text,
                "fact": claim.fact,
                "grounded": claim.grounded,
                "why": claim.why,
                "start": start,
                "end": end,
            }
        )
    return found


def reward_functions(names: Sequence[str], *, accuracy: str = "direction", skew_aware: bool = False) -> list[Callable]:
    """TRL reward functions for the components `names`, in that order; each `__name__` is its component's name.

    Called as f(completions, label, next_return, facts, base_rate_up, **kwargs) -> list[float]: completions are strings
    or conversations that end with the assistant's message, the columns lists of the same length. Raises ValueError for
    an unknown name or accuracy.
    """
    _check(accuracy, names)
    return [_reward_function(name, accuracy, skew_aware) for name in names]


def _reward_function(name: str, accuracy: str, skew_aware: bool) -> Callable:
    def reward(
        completions: Sequence[str | Sequence[Mapping[str, str]]],
        label: Sequence[str],
        next_return: Sequence[float],
        facts: Sequence[str],
        base_rate_up: Sequence[float],
        **kwargs: Any,
    ) -> list[float]:
        rewards = []
        for completion, *columns in zip(completions, label, next_return, facts, base_rate_up, strict=True):
            row = dict(zip(("label", "next_return", "facts", "base_rate_up"), columns, strict=True))
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            _check_row(row, skew_aware)
            forecast, reading = _read(text, row["facts"])
            if isinstance(forecast, Unreadable):
                rewards.append(0.0)
            elif name == "accuracy":
                rewards.append(_accuracy(forecast, row, accuracy, skew_aware)[0])
            elif name == "magnitude":
                rewards.append(_magnitude(forecast, row)[0])
            elif name == "data_usage":
                rewards.append(_data_usage(reading)[0])
            else:
                rewards.append(_coherence(reading)[0])
        return rewards

    reward.__name__ = name
    return reward


def _check(accuracy: str, names: Iterable[str]) -> None:
    if accuracy not in ACCURACIES:
        raise ValueError(f"unknown accuracy {accuracy!r}; choose from {', '.join(ACCURACIES)}")
    for name in names:
        if name not in COMPONENTS:
            raise ValueError(f"unknown reward {name!r}; choose from {', '.join(COMPONENTS)}")


def _check_row(row: Mapping, skew_aware: bool) -> None:
    for key in ("label", "next_return", "facts", *(("base_rate_up",) if skew_aware else ())):
        if key not in row:
            raise ValueError(f"the row has no {key}")
    if row["label"] not in ("UP", "DOWN"):
        raise ValueError(f"label: {row['label']!r} is neither UP nor DOWN")
    for key in ("next_return", *(("base_rate_up",) if skew_aware else ())):
        if not isinstance(row[key], (int, float)) or not math.isfinite(row[key]):
            raise ValueError(f"{key}: {row[key]!r} is not a number")


class _Reading(NamedTuple):
    """claims: of the reasoning. grounded: distinct facts cited. share: grounded ones among the distinct claims. words:
    of the reasoning."""

    claims: tuple[Claim, ...]
    grounded: int
    share: float
    words: int
    weighing: Weighing


_NOTHING_READ = _Reading((), 0, 0.0, 0, Weighing(0.0, 0.0, 1.0, []))


@lru_cache(maxsize=1024)
def _shown(facts: str) -> tuple[Book, float]:
    """What a row's prompt shows, and the share's daily volatility as a fraction: as shown, else a large share's."""
    try:
        listed = facts_from_json(facts)
        shown = float(next((fact.value for fact in listed if fact.name.startswith("volatility_")), 0))
        return book_of(listed), (shown / 100 if shown > 0 else DEFAULT_VOLATILITY)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"facts: not what facts_to_json writes: {error}") from error


@lru_cache(maxsize=2048)  # a batch: each reward function passes over all completions before the next one does
def _read(completion: str, facts: str) -> tuple[Forecast | Unreadable, _Reading]:
    book, volatility = _shown(facts)
    forecast = parse(completion)
    if isinstance(forecast, Unreadable) or len(forecast.reasoning) > LONGEST_REASONING:
        return forecast, _NOTHING_READ
    text = read(forecast.reasoning, book.phrases)
    claims = claims_of(forecast.reasoning, text, book)
    wanted = 1 if forecast.direction == "UP" else -1
    weighing = weigh(forecast.reasoning, text, claims, wanted, book)
    grounded = {claim.fact for claim in claims if claim.grounded and claim.counts}
    wrong = {claim.text for claim in claims if not claim.grounded}
    if sum(not claim.grounded and not claim.listed for claim in claims) > 2 * len(grounded) > 0:
        weighing.faults.append("most of its claims are not grounded")
    share = len(grounded) / max(1, len(grounded) + len(wrong))
    return forecast, _Reading(tuple(claims), len(grounded), share, len(text.words), weighing)


def _accuracy(forecast: Forecast, row: Mapping, kind: str, skew_aware: bool) -> tuple[float, str]:
    """Right direction: 1 or 0. Calibrated: 1 - (p_up - y)², the Brier score as a reward; no confidence counts as 0.5.

    skew_aware multiplies by min(b, 1 - b) / b_label, where b is the base rate of UP and b_label that of the row's
    label: 0.5 / b_label, scaled by one constant so that no reward exceeds 1. Always UP then earns
    b · min(b, 1 - b) / b = min(b, 1 - b) on average, and always DOWN the same: following the majority pays nothing.
    With both, the reward stays proper for a world in which both directions are equally likely: the best p_up has the
    odds of the true probability divided by the odds of b. It is a statement beyond the base rate, not a probability
    to bet on; to recover that, multiply the odds by b / (1 - b).
    """
    label = row["label"]
    if kind == "direction":
        value, reason = float(forecast.direction == label), f"predicted {forecast.direction}, was {label}"
    else:
        confidence = 0.5 if forecast.confidence is None else forecast.confidence
        p_up = confidence if forecast.direction == "UP" else 1 - confidence
        value, reason = 1 - (p_up - (label == "UP")) ** 2, f"stated P(UP) = {p_up:.2f}, was {label}"
    if skew_aware:
        base_rate_up = min(max(row["base_rate_up"], 0.01), 0.99)  # a base rate of 0 or 1 would silence every row
        of_label = base_rate_up if label == "UP" else 1 - base_rate_up
        weight = min(base_rate_up, 1 - base_rate_up) / of_label
        value, reason = value * weight, f"{reason}; weighted {weight:.2f} for the base rate of {label}"
    return value, reason


def _magnitude(forecast: Forecast, row: Mapping) -> tuple[float, str]:
    """1 when the expected move is exact, 0 when off by two daily volatilities or more, or in the wrong direction."""
    if forecast.move is None:
        return 0.0, "no expected move stated"
    if forecast.direction != row["label"]:
        return 0.0, "the direction is wrong"
    volatility = _shown(row["facts"])[1]
    actual = abs(row["next_return"])
    value = max(0.0, 1 - abs(forecast.move - actual) / (2 * volatility))
    return value, f"expected {forecast.move:.2%}, was {actual:.2%}, daily volatility {volatility:.2%}"


def _data_usage(reading: _Reading) -> tuple[float, str]:
    """Grounded share of the distinct claims × min(1, grounded / 3); at most a fifth of that for a faulty reasoning."""
    if not reading.grounded:
        return 0.0, "no grounded claim"
    value = reading.share * min(1.0, reading.grounded / ENOUGH_FACTS)
    total = round(reading.grounded / reading.share)
    return _at_fault(value, f"{reading.grounded} of {total} distinct claims are grounded", reading)


def _coherence(reading: _Reading) -> tuple[float, str]:
    """Does the reasoning support the answer? 0 without substance, at most a fifth for a faulty reasoning.

    Else 0.5 + 0.5 · (for - against) / (for + against) over the distinct evidence: 1 when all agree, less when mixed.
    Evidence for neither side, or as much for one as for the other without a conclusion, is a fault. Multiplied by the
    share of distinct sentences.
    """
    if not reading.grounded:
        return 0.0, "no grounded claim"
    if reading.words < LEAST_WORDS:
        return 0.0, f"fewer than {LEAST_WORDS} words"
    agree, against, distinct, _ = reading.weighing
    value = distinct * (0.5 + 0.5 * (agree - against) / max(1.0, agree + against))
    text = f"evidence {agree:g} for, {against:g} against; {distinct:.0%} of the sentences are distinct"
    return _at_fault(value, text, reading)


def _at_fault(value: float, text: str, reading: _Reading) -> tuple[float, str]:
    """The value itself, or what a faulty reasoning keeps: less, the more of its claims are wrong."""
    faults = reading.weighing.faults
    return (value * AT_FAULT * reading.share, f"{'; '.join(faults)} ({text})") if faults else (value, text)
