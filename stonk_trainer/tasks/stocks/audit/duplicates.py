"""Duplicate and nearly duplicate rows: in two splits they let a model memorise what it is judged on."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from stonk_trainer.task import Finding
from stonk_trainer.tasks.stocks.audit.rows import PAST, Numbers, Rows, prompt_lines

_WEEKDAY = re.compile(r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b", re.I)


def duplicates(rows: Rows, numbers: Numbers) -> list[Finding]:
    """Pairs of rows of one company and day, with the same text but for dates, or nearly the same numbers or headlines.

    A pair counts only when it shares more than chance gives the most similar of all pairs: the information of the
    shared tokens must exceed that of picking one pair by 10 bits. Earlier closes and reported figures do not count,
    because rows of neighbouring days share them honestly; nor do recurring headlines alone.
    """
    found = _similar_pairs(rows, numbers)
    split_of = rows.table["split"].to_numpy()
    across = [(a, b) for a, b in sorted(found) if split_of[a] != split_of[b]]
    if len(rows.splits) < 2:
        findings = [Finding("duplicates", "across", None, "there is one split only")]
    elif across:
        kinds = Counter(found[pair] for pair in across)
        named = "; ".join(
            f"{rows.name(a)} ({split_of[a]}) and {rows.name(b)} ({split_of[b]}), {found[a, b]}" for a, b in across[:3]
        )
        message = (
            f"{len(across):,} pairs across splits ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}): {named}"
            f"{'; …' if len(across) > 3 else ''}. Remove one of each pair"
        )
        findings = [Finding("duplicates", "across", False, message)]
    else:
        message = f"none among {len(split_of):,} rows of {len(rows.splits)} splits"
        findings = [Finding("duplicates", "across", True, message)]
    for split in rows.splits:
        inside = [(a, b) for a, b in sorted(found) if split_of[a] == split_of[b] == split]
        count, n = len({b for _, b in inside}), int(rows.of(split).sum())
        failed = count > 0.01 * n and count > 1
        message = "no duplicate row within the split"
        if inside:
            message = f"{count:,} of {n:,} rows are duplicates within the split, the first "
            message += f"{rows.name(inside[0][0])} and {rows.name(inside[0][1])}"
        findings.append(Finding("duplicates", split, not failed, message + (": remove the copies" if failed else "")))
    return findings


def _similar_pairs(rows: Rows, numbers: Numbers) -> dict[tuple[int, int], str]:
    """Pairs of row numbers, the lower first, and in what they are the same."""
    texts = defaultdict(list)
    for i, text in enumerate(rows.texts):
        texts[_WEEKDAY.sub("[day]", text)].append(i)
    number_tokens, word_tokens = _tokens(rows, numbers)
    all_tokens = [a | b for a, b in zip(number_tokens, word_tokens, strict=True)]
    bits = information(number_tokens, word_tokens)
    _lower_beside_the_close(bits, number_tokens, rows.past[:, 0])
    one_pair = math.log2(max(2, len(rows.texts) ** 2 / 2))
    needed = 10 + one_pair

    def worth(tokens: set) -> float:
        return sum(map(bits.__getitem__, tokens))

    repeated = {text: worth(all_tokens[held[0]]) for text, held in texts.items() if len(held) > 1}
    # Several repeated texts together are evidence where each alone is too little.
    enough = [10 / k + one_pair for k, b in enumerate(sorted(repeated.values())[::-1], 1) if b >= 10 / k + one_pair]

    def nearly_the_same(a: int, b: int) -> bool:
        if _jaccard(number_tokens[a], number_tokens[b]) < 0.8:
            return False
        same_words = _jaccard(word_tokens[a], word_tokens[b]) >= 0.8
        shared = worth(number_tokens[a] & number_tokens[b])
        return max(shared, same_words * worth(all_tokens[a] & all_tokens[b])) >= needed

    def same_headlines(a: int, b: int) -> bool:
        return (
            _jaccard(word_tokens[a], word_tokens[b]) >= 0.9
            and worth(word_tokens[a] & word_tokens[b]) >= needed
            and min(sum(name == "headline" for name, _ in prompt_lines(rows.texts[i])) for i in (a, b)) >= 3
            and _news_in_between(rows, word_tokens, a, b)
        )

    near = _candidates([n or w for n, w in zip(number_tokens, word_tokens, strict=True)], bits)
    found: dict[tuple[int, int], str] = {}
    for kind, pairs in (
        ("same company and day", _pairs(rows.table.groupby(["ticker", "date"]).indices.values())),
        ("same text", _pairs([texts[text] for text, b in repeated.items() if b >= min(enough, default=math.inf)])),
        ("nearly the same", [pair for pair in near if nearly_the_same(*pair)]),
        ("same headlines", [pair for pair in _candidates(word_tokens, bits) if same_headlines(*pair)]),
    ):
        for pair in pairs:
            found.setdefault((min(pair), max(pair)), kind)
    return found


def _news_in_between(rows: Rows, word_tokens: list[set], a: int, b: int) -> bool:
    """Whether two days over 30 days apart had other headlines in between: else these may just have been the newest."""
    low, high = sorted((rows.days[a], rows.days[b]))
    if (high - low) / np.timedelta64(1, "D") <= 30 or len(word_tokens[a]) < 8:
        return False
    company = rows.table["ticker"].to_numpy()
    if company[a] != company[b]:
        return True
    between = np.flatnonzero((company == company[a]) & (rows.days > low) & (rows.days < high))
    return any(_jaccard(word_tokens[i], word_tokens[a]) < 0.5 for i in between)


def _pairs(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Each member of a group with each of its first three, so that a large group takes linear time."""
    return [
        (int(a), int(b)) for group in groups if len(group) > 1 for i, a in enumerate(group[:3]) for b in group[i + 1 :]
    ]


def _tokens(rows: Rows, numbers: Numbers) -> tuple[list[set], list[set]]:
    """Per row its numbers as (slot, value), and its headlines as `headline_tokens`.

    Without earlier closes, reported figures and what more than half of all rows share.
    """
    reported = {f["name"].removeprefix("financials/") for fs in rows.facts for f in fs if "financials/" in f["name"]}
    history = [{f["value"] for f in fs if f["name"].endswith("d_ago")} for fs in rows.facts]
    number_tokens: list[set] = [set() for _ in rows.texts]
    in_past = np.zeros(len(numbers.row), bool)
    for k in range(1, PAST):
        in_past |= np.abs(numbers.value - rows.past[numbers.row, k]) <= 0.00501
    for row, slot, value, old in zip(numbers.row, numbers.slot, numbers.value, in_past, strict=True):
        name = numbers.slots[slot]
        if name in reported or name == "headline" or (name != "Close" and (old or value in history[row])):
            continue
        number_tokens[row].add((name, value))
    headlines = [[line for name, line in prompt_lines(text) if name == "headline"] for text in rows.texts]
    word_tokens = headline_tokens(headlines, rows.table["ticker"], rows.days)
    counts = Counter(token for tokens in (*number_tokens, *word_tokens) for token in tokens)
    common = {token for token, count in counts.items() if count > len(rows.texts) / 2 and count > 2}
    return [t - common for t in number_tokens], [t - common for t in word_tokens]


def headline_tokens(headlines: Sequence[Sequence[str]], tickers: Sequence[str], days: np.ndarray) -> list[set[str]]:
    """The words of each row's headlines; a recurring headline is a single token.

    The words of a recurring headline come together, so they carry no more information than the headline. It recurs
    when, apart from its figures and the ticker, it is on three or more days that lie over 30 days apart.
    """
    forms = [
        [(line, re.sub(rf"\d[\d.,]*|\b{re.escape(ticker.lower())}\b", "#", line.lower())) for line in lines]
        for lines, ticker in zip(headlines, tickers, strict=True)
    ]
    on_days = defaultdict(set)
    for lines, day in zip(forms, days.astype("datetime64[D]").astype(int).tolist(), strict=True):
        for _, form in lines:
            on_days[form].add(day)
    recurring = {form for form, held in on_days.items() if len(held) > 2 and _spread(sorted(held)) > 2}
    return [
        {token for line, form in lines for token in ([line] if form in recurring else re.findall(r"\w+", line.lower()))}
        for lines in forms
    ]


def _spread(days: Sequence[int]) -> int:
    """How many of the sorted days lie over 30 days after the one counted before."""
    count, last = 0, -math.inf
    for day in days:
        if day - last > 30:
            count, last = count + 1, day
    return count


def information(*token_lists: list[set]) -> dict:
    """Information in bits of a second row with a token: -log2 of the share of other rows that contain it."""
    counts = Counter(token for tokens in token_lists for held in tokens for token in held)
    n = len(token_lists[0])
    return {token: math.log2(n / max(1, count - 1)) for token, count in counts.items()}


def _lower_beside_the_close(bits: dict, number_tokens: list[set], closes: np.ndarray) -> None:
    """Give a price no more bits than its distance to the close has: the prompt shows the close anyway."""
    apart = Counter(
        (name, round(value - close, 2))
        for held, close in zip(number_tokens, closes, strict=True)
        for name, value in held
        if name != "Close"
    )
    for held, close in zip(number_tokens, closes, strict=True):
        for name, value in held:
            count = apart.get((name, round(value - close, 2)), 0)
            if count > 1:
                bits[name, value] = min(bits[name, value], math.log2(len(closes) / (count - 1)))


def _candidates(token_sets: list[set], bits: dict) -> set[tuple[int, int]]:
    """Pairs that can have a Jaccard similarity of 0.8: they share one of their rarest tokens.

    Prefix filtering (Chaudhuri, Ganti & Kaushik 2006): sorted by rarity, the first n - ceil(0.8 n) + 1 tokens suffice.
    """
    holders = defaultdict(list)
    for i, tokens in enumerate(token_sets):
        ordered = sorted(tokens, key=lambda token: (-bits[token], str(token)))
        for token in ordered[: len(tokens) - math.ceil(0.8 * len(tokens)) + 1]:
            holders[token].append(i)
    return {pair for rows in holders.values() if len(rows) <= 200 for pair in itertools.combinations(rows, 2)}


def _jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0
