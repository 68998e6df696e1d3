"""Rewards of the stocks task: pure scoring of one completion, and the same scoring as TRL reward functions.

    accuracy     the direction is right, or the stated probability is (a proper score)
    magnitude    the expected move is near the real one, in units of the ticker's recent volatility
    data_usage   the numbers in the reasoning are facts of the prompt
    coherence    the evidence cited supports the answer given

Every component lies in [0, 1]. A completion without one readable answer earns 0 in all of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from stonk_trainer.tasks.stocks.answer import Forecast, Unreadable, parse
from stonk_trainer.tasks.stocks.claims import Claim, find_claims
from stonk_trainer.tasks.stocks.facts import Fact, facts_from_json

COMPONENTS = ("accuracy", "magnitude", "data_usage", "coherence")
ACCURACIES = ("direction", "calibrated")

DEFAULT_VOLATILITY = 0.02  # daily, as a fraction: about that of a large US share; used when the row shows no volatility
ENOUGH_FACTS = 3  # distinct grounded facts for full data_usage
MOST_CLAIMS = 8  # beyond these, further claims dilute: a list of everything is no selection
LEAST_WORDS = 8  # a shorter reasoning has no substance
LONGEST_REASONING = (
    50_000  # characters, about 12,000 tokens; no claim of a longer one is read, so that a runaway text costs no time
)

_RISE = r"rise|rising|climb|gain|increase|advance|rally|rebound|recover|bounce|go up|move up|move higher|go higher"
_FALL = r"fall|falling|drop|decline|decrease|slide|sink|lose|slip|pull back|go down|move down|move lower|go lower"
_FIRM = r"will|should|going to|likely to|expect(?:ed)?(?: it| the share| the stock)? to|expect a"
_OUTLOOK = re.compile(
    rf"\b(?:(?P<firm>{_FIRM})|may|might|could|can)(?P<negated> not| never)?"
    rf"(?: (?!not|never)[a-z]{{1,12}})? (?:(?P<rise>{_RISE})|(?:{_FALL}))(?P<menu> or (?:{_FALL}|{_RISE}|down|up))?",
    re.ASCII,
)
_HEDGE = re.compile(
    r"\b(?:either (?:way|direction)|up or down|down or up|up/down|rise or fall|fall or rise)\b", re.ASCII
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n", re.ASCII)


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
    problem (why unreadable, else None), claims (text, fact, grounded, why), grounded (number of distinct grounded
    facts), reasons (one text per component).
    Raises ValueError for an unknown accuracy or component.
    """
    _check(accuracy, weights or ())
    forecast, claims = _read(completion, row["facts"])
    if isinstance(forecast, Unreadable):
        parts = dict.fromkeys(COMPONENTS, (0.0, f"no readable answer: {forecast.reason}"))
    else:
        parts = {
            "accuracy": _accuracy(forecast, row, accuracy, skew_aware),
            "magnitude": _magnitude(forecast, row),
            "data_usage": _data_usage(claims),
            "coherence": _coherence(forecast, claims),
        }
    weights = dict.fromkeys(COMPONENTS, 1 / len(COMPONENTS)) if weights is None else weights
    readable = isinstance(forecast, Forecast)
    return {
        **{name: value for name, (value, _) in parts.items()},
        "total": sum(weight * parts[name][0] for name, weight in weights.items()),
        "forecast": {key: getattr(forecast, key) for key in ("direction", "confidence", "move")} if readable else None,
        "problem": None if readable else forecast.reason,
        "claims": [{"text": c.text, "fact": c.fact, "grounded": c.grounded, "why": c.why} for c in claims],
        "grounded": len({claim.fact for claim in claims if claim.grounded}),
        "reasons": {name: reason for name, (_, reason) in parts.items()},
    }


def reward_functions(names: Sequence[str], *, accuracy: str = "direction", skew_aware: bool = False) -> list[Callable]:
    """TRL reward functions for the components `names`, in that order; each `__name__` is its component's name.

    Called as f(completions, label, next_return, facts, base_rate_up, **kwargs) -> list[float]: completions are strings
    or conversations that end with the assistant's message, the columns lists of the same length. Raises ValueError for
    an unknown name or accuracy.
    """
    _check(accuracy, names)
    return [_reward_function(name, accuracy, skew_aware) for name in names]


def _reward_function(name: str, accuracy: str, skew_aware: bool) -> Callable:
    def reward(completions, label, next_return, facts, base_rate_up, **kwargs) -> list[float]:
        rewards = []
        for completion, *columns in zip(completions, label, next_return, facts, base_rate_up, strict=True):
            row = dict(zip(("label", "next_return", "facts", "base_rate_up"), columns, strict=True))
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            forecast, claims = _read(text, row["facts"])
            if isinstance(forecast, Unreadable):
                rewards.append(0.0)
            elif name == "accuracy":
                rewards.append(_accuracy(forecast, row, accuracy, skew_aware)[0])
            elif name == "magnitude":
                rewards.append(_magnitude(forecast, row)[0])
            elif name == "data_usage":
                rewards.append(_data_usage(claims)[0])
            else:
                rewards.append(_coherence(forecast, claims)[0])
        return rewards

    reward.__name__ = name
    return reward


def _check(accuracy: str, names) -> None:
    if accuracy not in ACCURACIES:
        raise ValueError(f"unknown accuracy {accuracy!r}; choose from {', '.join(ACCURACIES)}")
    for name in names:
        if name not in COMPONENTS:
            raise ValueError(f"unknown reward {name!r}; choose from {', '.join(COMPONENTS)}")


@lru_cache(maxsize=256)
def _facts(text: str) -> tuple[Fact, ...]:
    return tuple(facts_from_json(text))


@lru_cache(maxsize=2048)  # a batch: each reward function passes over all completions before the next one does
def _read(completion: str, facts: str) -> tuple[Forecast | Unreadable, tuple[Claim, ...]]:
    forecast = parse(completion)
    if isinstance(forecast, Unreadable) or len(forecast.reasoning) > LONGEST_REASONING:
        return forecast, ()
    return forecast, tuple(find_claims(forecast.reasoning, _facts(facts)))


def _accuracy(forecast: Forecast, row: Mapping, kind: str, skew_aware: bool) -> tuple[float, str]:
    """Right direction: 1 or 0. Calibrated: 1 - (p_up - y)², the Brier score as a reward; no confidence counts as 0.5.

    skew_aware multiplies by min(b, 1 - b) / b_label, where b is the base rate of UP and b_label that of the row's
    label: 0.5 / b_label, scaled by one constant so that no reward exceeds 1. Always UP then earns
    b · min(b, 1 - b) / b = min(b, 1 - b) on average, and always DOWN the same: following the majority pays nothing.
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
    shown = next((fact.value for fact in _facts(row["facts"]) if fact.name.startswith("volatility_")), 0)
    volatility = shown / 100 if shown > 0 else DEFAULT_VOLATILITY
    actual = abs(row["next_return"])
    value = max(0.0, 1 - abs(forecast.move - actual) / (2 * volatility))
    return value, f"expected {forecast.move:.2%}, was {actual:.2%}, daily volatility {volatility:.2%}"


def _data_usage(claims: Sequence[Claim]) -> tuple[float, str]:
    """Grounded share of the distinct claims × min(1, grounded / 3) × min(1, 8 / claims)."""
    grounded = len({claim.fact for claim in claims if claim.grounded})
    total = grounded + len({claim.text for claim in claims if not claim.grounded})
    if not grounded:
        return 0.0, "no grounded claim"
    value = grounded / total * min(1.0, grounded / ENOUGH_FACTS) * min(1.0, MOST_CLAIMS / total)
    return value, f"{grounded} of {total} distinct claims are grounded"


def _coherence(forecast: Forecast, claims: Sequence[Claim]) -> tuple[float, str]:
    """Does the reasoning support the answer? 0 without substance, for contradiction, and for evidence net against it.

    Else 0.5 + 0.5 · (for - against) / (for + against) over the distinct grounded facts that give evidence: 1 when all
    agree, less when mixed, 0.5 when the facts cited are neutral. Multiplied by the share of distinct sentences.
    """
    evidence: dict[str, int] = {}
    for claim in claims:
        if claim.grounded:
            evidence[claim.fact] = claim.direction or evidence.get(claim.fact, 0)
    if not evidence:
        return 0.0, "no grounded claim"
    text = forecast.reasoning.lower()
    if len(text.split()) < LEAST_WORDS:
        return 0.0, f"fewer than {LEAST_WORDS} words"
    wanted = 1 if forecast.direction == "UP" else -1
    if problem := _contradiction(text, wanted):
        return 0.0, problem
    agree = sum(direction == wanted for direction in evidence.values())
    against = sum(direction == -wanted for direction in evidence.values())
    if against > agree:
        return 0.0, f"the evidence is against {forecast.direction}: {agree} for, {against} against"
    sentences = [sentence for part in _SENTENCE_END.split(text) if (sentence := part.strip(" \t.!?,;*-"))]
    distinct = len(set(sentences)) / len(sentences)
    value = 0.5 + 0.5 * (agree - against) / max(1, agree + against)
    return value * distinct, f"evidence {agree} for, {against} against; {distinct:.0%} of the sentences are distinct"


def _contradiction(text: str, wanted: int) -> str | None:
    """Why the outlook in `text` (lower case) cannot stand with a prediction of `wanted` (+1 UP, -1 DOWN), else None.

    A firm outlook ("will fall") must agree with the answer. A weak one ("could fall") names a risk and is allowed,
    unless both directions are stated, and only weakly.
    """
    if _HEDGE.search(text):
        return "hedges on both directions"
    firm, weak = set(), set()
    for match in _OUTLOOK.finditer(text):
        if match["menu"]:
            return "hedges on both directions"
        direction = (1 if match["rise"] else -1) * (-1 if match["negated"] else 1)
        (firm if match["firm"] else weak).add(direction)
    if -wanted in firm:
        return "states an outlook against its own answer"
    if len(weak) == 2 and not firm:
        return "hedges on both directions"
    return None
