"""The messages a model reads, rendered from facts and nothing else."""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence

from stonk_trainer.tasks.stocks.facts import Fact

SYSTEM = "You forecast the next trading day of a share from the data given."

QUESTION = """Will the next trading day's close be UP or DOWN? Reason in plain sentences: call each number by its name \
above, say what speaks for UP and what for DOWN, and end with the one you expect. Answer in this form:"""

# The answer asked for. Its placeholders are no answer: a model that echoes them is not readable.
FORM = """<think>
reasoning that cites the data
</think>
Prediction: UP or DOWN
Expected move: size in percent
Confidence: 50% to 100%"""

_MONTH = "|".join(m for m in (*calendar.month_name[1:], *calendar.month_abbr[1:]) if m not in ("May", "March", "Mar"))
_LEGAL_FORM = r"(?:\.com\b|,? (?:& )?(?:Inc|Corp|Corporation|Co|Company|Companies|Ltd|PLC|plc|Holdings|Group)\b).*$"


def render(facts: Sequence[Fact], financial_year: str | None = None) -> list[dict[str, str]]:
    """Facts → system and user message. `financial_year` heads the financials where they are shown."""
    one = {fact.name: fact.shown for fact in facts}
    history = [fact.shown for fact in facts if fact.name.endswith("d_ago")]
    financials = [fact for fact in facts if fact.name.startswith("financials/")]
    headlines = [fact.shown for fact in facts if fact.name.startswith("headline_")]
    lines = []
    if "company" in one:
        lines.append(f"Company: {one['company']}" + (f" ({one['ticker']})" if "ticker" in one else ""))
    if "description" in one:
        lines.append(one["description"])
    if "date" in one:
        lines.append(f"Date: {one['date']}")
    if history:
        lines.append(f"Earlier closes: {', '.join(history)}")
    if "open" in one:
        lines.append(f"Open: {one['open']}")
    lines.append(f"Close: {one['close']}")
    lines += [f"{label}: {fact.shown}" for fact in facts if (label := _indicator_label(fact.name))]
    if financials:
        lines.append(f"Financials{' of ' + financial_year if financial_year else ''}:")
        lines += [f"{fact.name.removeprefix('financials/')}: {fact.shown}" for fact in financials]
    if headlines:
        lines += ["Headlines:", *(f"- {headline}" for headline in headlines)]
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n".join(lines) + f"\n\n{QUESTION}\n{FORM}"},
    ]


def _indicator_label(name: str) -> str | None:
    """`change_5d` → "5-day change"; None for a fact that is no indicator."""
    if name == "volume":
        return "Volume"
    match = re.fullmatch(r"(change|sma|volatility)_(\d+)d?", name)
    if not match:
        return None
    kind, days = match.groups()
    return f"{days}-day {'average' if kind == 'sma' else kind}"


def mask_identity(text: str, name: str, ticker: str) -> str:
    """Hide the company and the calendar in a headline, so that the outcome cannot be recalled from memory.

    The name is hidden without its article and legal form too ("Home Depot" of "The Home Depot, Inc."). The ticker is
    hidden in capitals, or behind a dollar sign: ON and IT are words as well.
    """
    short = re.sub(_LEGAL_FORM, "", re.sub(r"^The ", "", name))
    for known in sorted({n for n in (name, short) if n}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", "the company", text, flags=re.IGNORECASE)
    if ticker:
        text = re.sub(
            rf"(?<!\w)\$ ?(?i:{re.escape(ticker)})(?!\w)|(?<![\w$]){re.escape(ticker)}(?!\w)", "the company", text
        )
    text = re.sub(r"\b(?:19|20)\d\d(?:-\d\d-\d\d)?\b|\b\d{1,2}/\d{1,2}(?:/\d{2,4})?\b", "[date]", text)
    text = re.sub(rf"\b(?:{_MONTH})\b\.?(?: \d{{1,2}}(?!\d))?,?(?: \[date\])?", "[date]", text)
    # Lower case, and months that are words too, are dates only beside a number or a year.
    month = rf"(?:{_MONTH}|May|Mar|March)\b\.?"
    near = rf"\b{month}(?: \d{{1,2}}(?!\d)|,? \[date\])(?:,? \[date\])?|\b\d{{1,2}} {month}"
    return re.sub(near, "[date]", text, flags=re.IGNORECASE)
