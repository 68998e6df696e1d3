"""Honest reasonings: rows of real prices, each with what an analyst or a small model might write about it.

`honest_rows()` gives (setting, row, direction, text). Rows are pinned by ticker and date. Every statement in a text is
true of its row, and no text follows the warm-up's template. Those of texts_as_asked.json do what the prompt asks: they
say what speaks for UP and what for DOWN, and end with the one they expect. The others are in the writer's own words.
"""

import csv
import datetime
import functools
import gzip
import json
import tempfile
from importlib import resources
from pathlib import Path

from stonk_trainer.tasks.stocks import Arguments, rl_dataset

SETTINGS = {
    "demo": {"history_days": 0, "indicators": ["change_1d", "change_5d", "sma_20"]},
    "default": {},
    "anonymous": {"anonymise": True, "history_days": 5},
    "news": {"history_days": 3},
}
# Made up: headlines and reported figures for real prices.
NEWS = {
    ("AAPL", "2020-02-20"): (
        ["Apple warns it will miss its March quarter revenue guidance", "Apple suppliers slowly reopen plants"],
        {"Total Revenue": "260174000000", "Net Income": "55256000000", "Diluted EPS": "2.97", "P/E Ratio": "24.8"},
    ),
    ("XOM", "2016-06-15"): (
        ["Oil slips 2% to a three-week low as dollar firms", "Exxon keeps its dividend after weak quarter"],
        {"Revenues": 268900000000, "NetIncomeLoss": 16150000000, "EPS": 3.85},
    ),
    ("KO", "2018-05-10"): (
        ["Coca-Cola beats quarterly profit estimates by 2 cents", "Consumer staples lag the market"],
        {"Total Revenue": 35410000000, "Net Income": 1248000000, "Profit Margin": 0.035, "Dividend Yield": 0.0362},
    ),
    ("PG", "2017-03-15"): (
        ["Activist fund takes a $3.5 billion stake in Procter & Gamble"],
        {"Total Revenue": 65299000000, "Cost Of Revenue": 32909000000, "EPS": 3.69, "Debt To Equity Ratio": 0.52},
    ),
}

TEXTS = {
    (
        "demo",
        "AAPL",
        "2012-10-24",
        "UP",
    ): "Apple has been hit hard: down 4.31% in five days, and at $18.80 it sits well "
    "under the 20-day average of $19.62. Yesterday's session ended that slide with a small gain of 0.56%. To me that "
    "looks oversold, so I expect a bounce.",
    ("demo", "BAC", "2015-09-03", "DOWN"): "Bank of America is trading at $13.61, which is below its 20-day average of "
    "$14.28. The 5-day change is -2.73%, which shows a downward trend. Although it gained 0.56% on the last day, the "
    "trend is still weak, so the price is likely to fall.",
    ("demo", "CVX", "2016-12-22", "UP"): "- The close of $90.05 is roughly 3.4% above the 20-day average ($87.12).\n"
    "- Over 5 days the stock is up 1.47%.\n- The last day's 0.73% came on top, with no sign of profit-taking.\n"
    "Overall the trend is positive and I lean towards a rise.",
    ("demo", "KO", "2009-09-08", "UP"): "Coca-Cola has advanced 3.4% this week, 0.9% of it today. It stands at $16.36 "
    "against a 20-day mean of $15.94. Buyers are in control, and nothing here says that momentum is fading.",
    ("demo", "LLY", "2006-07-11", "DOWN"): "The stock slipped 0.6% in the latest session after a week that is still "
    "0.45% higher. At $32.34 it is $0.70 above its 20-day SMA of $31.64, so there is room to fall back towards it.",
    ("demo", "PG", "2004-08-18", "UP"): "PG closed at $32.55, up 0.66% on the day and up 0.97% over the past five "
    "sessions. Price > 20-day average ($32.55 > $31.68). Steady, low-drama strength like this tends to continue.",
    ("demo", "WMT", "2016-09-01", "UP"): "1. The 1-day change is +1.96%, indicating strong buying interest.\n"
    "2. The 5-day change is +2.27%, indicating a positive short-term trend.\n"
    "3. The closing price of $63.83 is slightly above the 20-day average of $63.68.\n"
    "Given these points, the stock will likely go up.",
    ("demo", "XOM", "2003-03-05", "DOWN"): "XOM ran up 3.19% in a week and 2.01% in a single day, which leaves it 3.3% "
    "above its 20-day average. That is a stretched position for such a slow stock and I would expect some "
    "profit-taking.",
    ("default", "AMD", "2014-11-21", "UP"): "After drifting down to $2.61 a week ago, AMD has turned: $2.63, $2.69 and "
    "now $2.77, a 2.97% jump on the last day alone. That puts it back above both the 5-day ($2.68) and the 20-day "
    "($2.73) averages. With daily volatility of about 1.7% the move is more than noise. I expect follow-through.",
    ("default", "BAC", "2005-11-09", "UP"): "BofA's uptrend is orderly. It gained 1.0% over 5 days, 3.1% over 10 days "
    "and 6.3% over 20 days, with volatility under 1% per day. The close ($30.60) is the highest of the last 15 days. "
    "No sign of exhaustion yet, so another small gain is the base case.",
    ("default", "GE", "2006-06-29", "UP"): "The picture is mixed. GE lost nearly 3% in 20 days and its close of "
    "$126.59 is still below the 20-day average of $127.89. However, it bounced 1.03% in the last session and is back "
    "above its 5-day average of $125.91. I give more weight to the turn and say up, with little confidence.",
    ("default", "GE", "2016-11-14", "UP"): "GE shares fell 0.65% on the day, from $169.08 to $167.98, but this follows "
    "an advance of 4.09% in five days and 5.75% in a month. The 5-day SMA ($165.92) stands well above the 20-day SMA "
    "($160.65). A one-day dip in such a trend is usually bought.",
    ("default", "HD", "2013-01-25", "DOWN"): "Home Depot has climbed from $50.33 six sessions ago to $53.45, six "
    "straight gains in a row. The price is 6.0% above its 20-day average and up 10.9% over 20 days. For a stock whose "
    "daily volatility is 0.9% that looks overbought, so I expect a pause or a pullback tomorrow.",
    (
        "default",
        "JPM",
        "2007-02-08",
        "DOWN",
    ): "JPMorgan stalled this week. The closes of $33.30, $33.12 and $33.13 from "
    "five to three days ago led nowhere, and the last one is $33.12, a loss of 0.55% on the day and over the week. It "
    "has just dropped under its 5-day average of $33.16. Momentum is fading; I think it drifts lower.",
    ("default", "KO", "2003-07-23", "UP"): "Over the last five days Coke went from $11.88 to $12.51, a 5.3% recovery, "
    "and has now closed just above its 20-day moving average of $12.50. The monthly loss of 4.24% is being repaired. "
    "I expect it to edge higher.",
    ("default", "MSFT", "2003-03-10", "DOWN"): "Sellers are in charge at Microsoft. The share price dropped 2.59% in "
    "one day to $14.33, its lowest close in the period. It has lost 4.66% over 10 days and sits below both the 5-day "
    "average ($14.53) and the 20-day average ($14.82). I see no support here and expect further weakness.",
    ("default", "RRC", "2007-03-15", "DOWN"): "The trend is down on every horizon: \u22120.53% on the day, \u22121.28% "
    "over 5 days, \u22126.27% over 10 days. From above $30 in the prior weeks the stock has come to $28.16, and the "
    "20-day average of $29.00 now caps it.",
    ("default", "RRC", "2013-09-11", "UP"): "RRC just posted a strong day (+1.67%) that took it to $76.20, well clear "
    "of its 5-day average, $74.47, and its 20-day average, $73.61.\nThe 5- and 10-day changes of +4.37% and +4.65% "
    "say that the break is recent.\nI would not bet against it.",
    (
        "demo",
        "JNJ",
        "2017-02-02",
        "DOWN",
    ): "Despite the 1.55% gain over five days, the stock is still trading below its 20-day average of $96.12. "
    "That average may act as resistance, so I expect a small drop from $95.57.",
    (
        "demo",
        "WMT",
        "2019-10-28",
        "UP",
    ): "Walmart edged up 0.15% on the day and closed at $112.25, above its 20-day average of $111.81. The 5-day "
    "change is -0.43%, a minor dip in an otherwise positive trend. I expect it to rise slightly.",
    (
        "default",
        "BAC",
        "2018-02-07",
        "DOWN",
    ): "Bank of America has been volatile lately. It dropped from $28.72 four days ago to $26.74 two days ago, "
    "and has only partly recovered to $27.61. The close is below both the 5-day average of $27.78 and the "
    "20-day average of $27.91, so the bias is to the downside.",
    (
        "default",
        "HD",
        "2020-06-01",
        "DOWN",
    ): "The 20-day change of +13.14% is very large and the price is 4.3% above its 20-day average of $219.71. "
    "The last day's drop of 0.48% suggests that the rally is losing steam. I expect a modest decline.",
    (
        "default",
        "KO",
        "2021-12-13",
        "UP",
    ): "Strong momentum: the stock is up 2.63% today, 5.19% over five days and 6.65% over ten days. At $55.25 it "
    "closed above all prior closes shown. I expect the rally to go on.",
    (
        "default",
        "UNH",
        "2022-03-18",
        "UP",
    ): "The share closed at $497.38, down slightly by 0.18%, after rising to $498.26 the day before. The 5-day "
    "gain of 4.81% and a price well above the 20-day average of $473.78 point to continued strength.",
    (
        "demo",
        "PFE",
        "2022-08-16",
        "DOWN",
    ): "The 1-day change is +0.22% and the 5-day change is +0.16%, both very small. The close of $47.93 is below "
    "the 20-day average of $48.29, so the overall trend is still down. I expect a slight decline.",
    (
        "demo",
        "LLY",
        "2018-02-21",
        "DOWN",
    ): "Eli Lilly ended the day unchanged at $70.59. It is up 2.52% over five days, but the price is still below "
    "the 20-day average of $72.38, and the rebound seems to have stalled. I expect a slight fall.",
    (
        "default",
        "HD",
        "2018-04-03",
        "DOWN",
    ): "Home Depot is below both its 5-day average ($154.05) and its 20-day average ($156.05). It has lost 1.49% "
    "in five days and 3.85% in twenty. Although it recovered 0.50% yesterday, I think the downtrend will "
    "resume.",
    (
        "default",
        "KO",
        "2017-04-05",
        "UP",
    ): "Coca-Cola is a calm stock with a daily volatility of only 0.39%. It is up 2.28% over 20 days and trades "
    "above its 20-day average of $34.65. The loss of 0.26% on the last day is normal, and the slow uptrend "
    "should continue.",
    (
        "default",
        "MRK",
        "2018-09-20",
        "UP",
    ): "Merck closed at $58.36, its highest close in the data, after gaining 1.14% on the day. It is up 2.71% "
    "over ten days and 3.22% over twenty. The breakout is likely to attract more buyers.",
    (
        "default",
        "PEP",
        "2020-04-08",
        "UP",
    ): "From a low of $94.90 thirteen days ago the stock has recovered to $121.09. It gained 17.88% in ten days "
    "and 12.27% in five. Momentum is extremely strong, so my forecast is UP.",
    (
        "demo",
        "PEP",
        "2017-08-15",
        "DOWN",
    ): "PepsiCo is at $100.03, some $1.99 above its 20-day average of $98.04. After two strong readings (+0.96% "
    "on the day, +1.94% on the week) I suspect the stock needs a breather, so I go with a small decline.",
    (
        "default",
        "MRK",
        "2018-09-20",
        "DOWN",
    ): "Merck jumped 1.14% to $58.36. With daily volatility of just 0.70%, that is a large move, and the stock "
    "is now 2.5% above its 20-day average. I expect it to give back some of that gain.",
    (
        "default",
        "PEP",
        "2020-04-08",
        "DOWN",
    ): "At $121.09 the stock is 10.3% above its 20-day average of $109.78 after rising 17.88% in ten days. With "
    "a volatility of 6.90% the swings are huge, and a pullback seems more likely than not.",
    (
        "default",
        "UNH",
        "2020-03-19",
        "DOWN",
    ): "The share price has fallen from $269.85 nine days ago to $209.85, and volatility is very high at 7.08%. "
    "The 20-day change of -26.93% shows how strong the selling is. One positive day (+1.26%) is not enough.",
    ("anonymous", "AMD", "2013-01-23", "UP"): "A huge one-day jump of 11.43%, from $2.45 to $2.73, takes the stock "
    "above its 20-day average of $2.56. Daily volatility is 4.45%, so this is a move of more than two standard "
    "deviations. News of that size is rarely digested within one session; I expect more upside.",
    ("anonymous", "BBY", "2011-07-13", "DOWN"): "The share is at $21.37 and both averages are at $21.55, so it trades "
    "a little under them. It declined 2.34% over the last week. The 20-day gain of 4.21% was made earlier and is "
    "fading. Slightly bearish.",
    ("anonymous", "RRC", "2006-06-13", "UP"): "This is a rout: minus 13.01% in five days and minus 16.19% in twenty. "
    "The close of $20.57 is 11.6% below the 20-day average. A drop this large against a daily volatility of 2.38% is "
    "an overreaction in my view, and I expect a relief rally.",
    ("news", "AAPL", "2020-02-20", "DOWN"): "Apple has warned that it will miss its revenue guidance for the March "
    "quarter, and the stock lost 1.03% on the day to $78.41. It now trades below its 5-day average. At a P/E of 24.8 "
    "there is little protection against bad news, so I expect it to keep falling.",
    ("news", "XOM", "2016-06-15", "DOWN"): "Oil is down 2% to a three-week low according to the headlines, which hurts "
    "Exxon directly. The stock eased 0.3% to $64.57 and is 0.7% lower over five days. With revenue of $268.9 billion "
    "and net income of only $16.2 billion, its margins leave little cushion. I lean DOWN.",
    ("news", "KO", "2018-05-10", "UP"): "Coca-Cola closed at $35.75, up 0.96% on the day, after a beat of 2 cents on "
    "quarterly profit. It is still 2.1% under its 20-day average of $36.53, so there is room to recover. The dividend "
    "yield of 3.62% should attract buyers.",
    ("news", "PG", "2017-03-15", "UP"): "P&G rose 0.44% to $76.51 and is 1.4% higher over five days, above its 5-day "
    "average of $76.20. The activist stake of $3.5 billion supports the shares, and EPS was $3.69. I expect this "
    "slow climb to go on.",
}
AS_ASKED = json.loads((Path(__file__).parent / "texts_as_asked.json").read_text())
TEXTS |= {(one["setting"], one["ticker"], one["date"], one["direction"]): one["text"] for one in AS_ASKED}


@functools.cache
def _prices():
    path = resources.files("stonk_trainer") / "assets" / "sp500_closes.csv.gz"
    with path.open("rb") as file, gzip.open(file, "rt") as lines:
        return list(csv.DictReader(lines))


def news_rows() -> list[dict]:
    """Rows of the deepstock schema: real closes, with the headlines and figures above on the pinned days."""
    rows = []
    for (ticker, day), (headlines, figures) in NEWS.items():
        at = next(i for i, price in enumerate(_prices()) if price["Date"] == day)
        for price, before in zip(_prices()[at - 30 : at + 2], _prices()[at - 31 : at + 1], strict=True):
            last = price["Date"] == day
            info = {
                "ticker": ticker,
                "current_date": price["Date"],
                "company_info": {"name": ticker, "description": f"{ticker} is a large listed company."},
                "news": {"news_headlines": headlines if last else [], "news_date": price["Date"]},
                "financials": {
                    "year": str(int(day[:4]) - 1),
                    "financials": json.dumps(figures if last else {"Net Income": 1}),
                },
                "price": {
                    "open": None,
                    "close": float(price[ticker]),
                    "open_previous": None,
                    "close_previous": float(before[ticker]),
                    "price_date": price["Date"],
                    "previous_date": before["Date"],
                },
            }
            rows.append({"ticker": ticker, "company_info": info, "user_prompt": ""})
    return rows


@functools.cache
def rows_of(setting: str) -> dict[tuple[str, str], dict]:
    """(ticker, date) → row, of the pinned rows of a setting."""
    pinned = {(ticker, day) for name, ticker, day, _ in TEXTS if name == setting}
    with tempfile.TemporaryDirectory() as folder:
        source = {}
        if setting == "news":
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in news_rows()))
            source = {"dataset_name": str(path)}
        return {(ticker, day): _row(ticker, day, {**source, **SETTINGS[setting]}) for ticker, day in pinned}


def _row(ticker: str, day: str, keys: dict) -> dict:
    """The row of one day: a validation split of a few days holds it."""
    date = datetime.date.fromisoformat(day)
    ends = {"train_end": str(date - datetime.timedelta(9)), "validation_end": str(date + datetime.timedelta(8))}
    arguments = Arguments(tickers=[ticker], natural_distribution=True, **ends, **keys)
    return next(row for row in rl_dataset(arguments, "validation") if row["date"] == day)


def honest_rows() -> list[tuple[str, dict, str, str]]:
    """(setting, row, direction, reasoning) for every text."""
    return [(name, rows_of(name)[ticker, day], way, text) for (name, ticker, day, way), text in TEXTS.items()]


def answer(reasoning: str, direction: str) -> str:
    return f"<think>\n{reasoning}\n</think>\nPrediction: {direction}\nExpected move: 1.1%\nConfidence: 57%"
