"""The messages a model reads, rendered from facts and nothing else."""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence

from stonk_trainer.tasks.stocks.facts import Fact, labels

SYSTEM = "You forecast the next trading day of a share from the data given."

QUESTION = """Will the next trading day's close be UP or DOWN? Think first. Then list three to five lines of evidence \
from both sides, each a name from above, its value, and the side it points to. Compare two prices as A vs B: above or \
below.{headlines} Answer in this form:"""
OF_HEADLINES = " Quote at least four words of a headline."

# The answer asked for. Its placeholders are not an answer: a model that echoes them is not readable.
FORM = """<think>
your reasoning
</think>
Evidence:
- name | value | UP, DOWN or NEUTRAL
- A vs B | above or below | UP, DOWN or NEUTRAL
Prediction: UP or DOWN
Expected move: size in percent
Confidence: 50% to 100%"""

_MONTH = "|".join(m for m in (*calendar.month_name[1:], *calendar.month_abbr[1:]) if m not in ("May", "March", "Mar"))
_LEGAL_FORM = r"(?:\.com\b|,? (?:& )?(?:Inc|Corp|Corporation|Co|Company|Companies|Ltd|PLC|plc|Holdings|Group)\b).*$"


def render(facts: Sequence[Fact], financial_year: str | None = None) -> list[dict[str, str]]:
    """Facts → system and user message. `financial_year` heads the financials where they are shown."""
    one = {fact.name: fact.printed for fact in facts}
    label = labels(facts)
    lines = []
    if "company" in one:
        lines.append(f"Company: {one['company']}" + (f" ({one['ticker']})" if "ticker" in one else ""))
    if "description" in one:
        lines.append(one["description"])
    if "date" in one:
        lines.append(f"Date: {one['date']}")
    if history := [fact for fact in facts if _is_earlier_close(fact)]:
        days = [f"{label[fact.name].removeprefix('Close ')} {fact.printed}" for fact in history]
        lines.append(f"Earlier closes: {', '.join(days)}")
    cited = [fact for fact in facts if fact.name in label and fact not in history]
    financials = [fact for fact in cited if fact.name.startswith("financials/")]
    headlines = [fact for fact in cited if fact.name.startswith("headline_")]
    for part in ([fact for fact in cited if fact not in financials + headlines], financials, headlines):
        if part and part is financials:
            lines.append(f"Financials{' of ' + financial_year if financial_year else ''}:")
        lines += [f"{label[fact.name]}: {fact.printed}" for fact in part]
    question = QUESTION.format(headlines=OF_HEADLINES if headlines else "")
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n".join(lines) + f"\n\n{question}\n{FORM}"},
    ]


def _is_earlier_close(fact: Fact) -> bool:
    return fact.name.endswith("d_ago")


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
