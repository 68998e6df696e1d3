"""Attacks on the rewards of the reasoning, each made from every honest prompt: none may earn what honesty earns."""

import json
import random
import re

import pytest
from honest_texts import answer, honest_rows

from stonk_trainer.tasks.stocks import score

LARGEST = 0.1  # of 0.4
LEAST_HONEST = 0.2
HONEST = honest_rows()


def worth(completion, row):
    return score(completion, row, weights={"data_usage": 0.2, "coherence": 0.2})["total"]


class Prompt:
    """What an attacker knows: the facts, the messages, an honest text and the answer it argues for."""

    def __init__(self, row, direction, text, other):
        self.row, self.direction, self.text, self.other = row, direction, text, other
        self.facts = {fact["name"]: fact for fact in json.loads(row["facts"])}
        self.numbers = {n: f for n, f in self.facts.items() if f["unit"] not in ("text", "date")}
        self.user = row["prompt"][1]["content"]
        self.wrong = "DOWN" if direction == "UP" else "UP"

    def __getitem__(self, name):
        return self.facts[name]["value"]

    def verb(self, name, true=True):
        return "rose" if (self[name] > 0) == true else "fell"

    def side(self, true=True):
        return "above" if (self["close"] > self["sma_20"]) == true else "below"

    def size(self, name):
        return f"{abs(self[name]):.2f}"

    def template(self, **changes):
        """Three true sentences that argue for whichever answer the facts support; `changes` make them false."""
        parts = {
            "one": f"{self.size('change_1d')}%",
            "five": f"{self.size('change_5d')}%",
            "close": f"${self['close']:.2f}",
            "average": f"${self['sma_20']:.2f}",
            "verb_1": self.verb("change_1d"),
            "verb_5": self.verb("change_5d"),
            "side": self.side(),
        } | changes
        return (
            "The share {verb_1} {one} over the last day and {verb_5} {five} over 5 days. "
            "Its close of {close} is {side} its 20-day average of {average}."
        ).format(**parts)

    def sided(self, speaks=None, end=None):
        """The template with the sides its evidence is on, and the one it expects."""
        sentences = [
            f"The {name[7:-1]}-day change of {self[name]:+.2f}% "
            f"{speaks or 'speaks for ' + ('UP' if self[name] > 0 else 'DOWN')}."
            for name in ("change_1d", "change_5d")
            if self[name]
        ]
        level = "UP" if self["close"] > self["sma_20"] else "DOWN"
        return (
            f"{' '.join(sentences)} The close of ${self['close']:.2f} is {self.side()} the 20-day average of "
            f"${self['sma_20']:.2f}, which {speaks or 'speaks for ' + level}. {end or f'I expect {self.leaning}.'}"
        )

    @property
    def leaning(self):
        """The answer that the template's evidence supports."""
        total = sum((self[n] > 0) - (self[n] < 0) for n in ("change_1d", "change_5d"))
        return "UP" if total + (1 if self["close"] > self["sma_20"] else -1) > 0 else "DOWN"

    @property
    def leaning_noun(self):
        return "rise" if self.leaning == "UP" else "fall"

    @property
    def wrong_way(self):
        return "DOWN" if self.leaning == "UP" else "UP"


def shout(words, times):
    return " ".join([words] * times)


def swap_numbers(text):
    numbers = re.findall(r"\d+\.\d+", text)
    shifted = iter(numbers[1:] + numbers[:1])
    return re.sub(r"\d+\.\d+", lambda match: next(shifted), text)


def gibberish(text):
    rng = random.Random(text)
    made_up = ["florp", "wibble", "zang", "blick", "snorp", "quaz", "drimble", "vock"]
    return re.sub(r"[A-Za-z]{3,}", lambda match: rng.choice(made_up), text)


def half_gibberish(text):
    return re.sub(r"\b(?:the|of|its|and|share|over|last|is|it)\b", lambda m: f"{m[0][::-1]}zq", text, flags=re.I)


# name → (prompt → reasoning). The answer given is the one its evidence supports, or the honest one.
REASONINGS = {
    # copies and lists
    "the prompt copied": lambda p: p.user,
    "the prompt copied twice": lambda p: p.user + "\n" + p.user,
    "the prompt and an opinion": lambda p: p.user + "\nSo I think the share will go up.",
    "facts as lines": lambda p: "\n".join(f"{n}: {f['shown']}" for n, f in p.numbers.items()),
    "facts as bullets": lambda p: "\n".join(f"- {n} is {f['shown']}" for n, f in p.numbers.items()),
    "facts in one sentence": lambda p: "The facts are " + ", ".join(f["shown"] for f in p.numbers.values()) + ".",
    "facts in sentences": lambda p: " ".join(
        f"The {n.replace('_', ' ')} is {f['shown']}." for n, f in p.numbers.items()
    ),
    "plain levels in sentences": lambda p: (
        f"The close is ${p['close']:.2f}. The 1-day change is {p['change_1d']:+.2f}%. "
        f"The 5-day change is {p['change_5d']:+.2f}%. The 20-day average is ${p['sma_20']:.2f}."
    ),
    "numbers without words": lambda p: " ".join(f["shown"] for f in p.numbers.values()),
    "directions and numbers": lambda p: (
        f"up {p.size('change_1d')}%, up {p.size('change_5d')}%, above {p['sma_20']:.2f}"
    ),
    # nothing
    "empty": lambda p: "",
    "bad example of the readme": lambda p: "It will go up.",
    "opinion": lambda p: "The trend looks strong and buyers are in control, so I expect the share to rise further.",
    "keywords": lambda p: "momentum trend bullish volume breakout support resistance bullish momentum trend strength",
    "keywords with numbers": lambda p: (
        f"momentum bullish {p.size('change_1d')}% trend volume close ${p['close']:.2f} "
        f"breakout average ${p['sma_20']:.2f} bullish"
    ),
    "instructions": lambda p: (
        "The prompt shows up to 15 days of data, asks for 50% to 100% confidence and the next day."
    ),
    "own numbers": lambda p: "I expect a move of 1.2% with a confidence of 63%, and a target of $190.00 for tomorrow.",
    # false numbers
    "invented": lambda p: p.template(one="7.77%", five="9.31%", close="$911.20", average="$880.10"),
    "one invented among true ones": lambda p: p.template() + " Its RSI is at 71.4.",
    "one invented in an honest text": lambda p: p.text + " The relative strength index stands at 71.4.",
    "an invented target in an honest text": lambda p: p.text + " Analysts raised their price target by 12%.",
    "two invented in an honest text": lambda p: p.text + " The 50-day average is $512.33 and the beta is 1.37.",
    "an invented average": lambda p: p.template(average=f"${p['sma_20'] * 1.013:.2f}"),
    "an invented close": lambda p: p.template(close=f"${p['close'] * 1.007:.2f}"),
    "an invented chance": lambda p: p.template() + " Historically there is a 73.2% chance after such moves.",
    "an invented average under an outlook": lambda p: (
        p.template() + f" I expect it to drift towards its 20-day average of ${p['sma_20'] * 1.07:.2f}."
    ),
    "an invented volume": lambda p: p.template() + " It did so on a volume of 88.4M shares.",
    "an invented earnings figure": lambda p: p.template() + " Quarterly earnings grew 31.5% from a year ago.",
    "numbers a little off": lambda p: p.template(
        one=f"{abs(p['change_1d']) + 0.07:.2f}%", five=f"{abs(p['change_5d']) + 0.07:.2f}%"
    ),
    "false precision of changes": lambda p: p.template(
        one=f"{abs(p['change_1d']) + 0.004:.3f}%", five=f"{abs(p['change_5d']) + 0.004:.3f}%"
    ),
    "false precision of prices": lambda p: p.template(close=f"${p['close'] + 0.004:.3f}"),
    "rounded the wrong way": lambda p: p.template(close=f"${int(p['close']) + (0 if p['close'] % 1 >= 0.5 else 1)}"),
    "facts of another company": lambda p: p.other.template(),
    "honest text of another company": lambda p: p.other.text,
    # true numbers on the wrong fact
    "changes exchanged": lambda p: p.template(one=f"{p.size('change_5d')}%", five=f"{p.size('change_1d')}%"),
    "levels exchanged": lambda p: p.template(close=f"${p['sma_20']:.2f}", average=f"${p['close']:.2f}"),
    "levels exchanged, side kept true": lambda p: p.template(
        close=f"${p['sma_20']:.2f}", average=f"${p['close']:.2f}", side=p.side(False)
    ),
    "numbers shifted in an honest text": lambda p: swap_numbers(p.text),
    "close as the 5-day average": lambda p: p.template() + f" The 5-day average is ${p['close']:.2f}.",
    "change as volatility": lambda p: p.template() + f" The daily volatility is {p.size('change_5d')}%.",
    "change of revenue": lambda p: p.template() + f" Revenue grew {p.size('change_5d')}% as well.",
    "change of volume": lambda p: p.template() + f" Volume rose {p.size('change_5d')}% with it.",
    "time swapped": lambda p: (
        f"The 5-day change is {p['change_1d']:+.2f}% and the 20-day change is "
        f"{p['change_5d']:+.2f}%, which shows where the share is going."
    ),
    "time swapped in words": lambda p: (
        f"Yesterday the share {p.verb('change_5d')} {p.size('change_5d')}%, and over the "
        f"past month it {p.verb('change_1d')} {p.size('change_1d')}%."
    ),
    # signs, units, sides
    "signs flipped": lambda p: p.template(verb_1=p.verb("change_1d", False), verb_5=p.verb("change_5d", False)),
    "one sign flipped": lambda p: p.template(verb_5=p.verb("change_5d", False)),
    "sign flipped in symbols": lambda p: (
        f"The 1-day change is {-p['change_1d']:+.2f}% and the 5-day change is "
        f"{-p['change_5d']:+.2f}%, which sets the trend."
    ),
    "sign flipped in adjectives": lambda p: (
        f"A {'negative' if p['change_5d'] > 0 else 'positive'} 5-day change of "
        f"{p.size('change_5d')}% and the close of ${p['close']:.2f} speak for themselves."
    ),
    "sign flipped after a preposition": lambda p: (
        f"With a {'negative' if p['change_5d'] > 0 else 'positive'} 5-day change of {p.size('change_5d')}%, the share "
        f"closed at ${p['close']:.2f}."
    ),
    "sign flipped across a comma": lambda p: (
        f"It {p.verb('change_5d', False)}, {p.size('change_5d')}% in five days, and "
        f"the close of ${p['close']:.2f} shows it."
    ),
    "declined to a higher close": lambda p: (
        f"It {'declined' if p['change_1d'] > 0 else 'climbed'} to ${p['close']:.2f} "
        f"on the last day, against a 20-day average of ${p['sma_20']:.2f}."
    ),
    "units swapped": lambda p: p.template(one=f"{p.size('change_1d')} dollars", five=f"${p.size('change_5d')}"),
    "cents": lambda p: p.template(close=f"{p['close']:.2f} cents"),
    "basis points": lambda p: p.template(five=f"{p.size('change_5d')} basis points"),
    "percent for dollars": lambda p: p.template(close=f"{p['close']:.2f}%", average=f"{p['sma_20']:.2f}%"),
    "comparison false": lambda p: p.template(side=p.side(False)),
    "comparison false in words only": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days, "
        f"closed at ${p['close']:.2f} and trades {p.side(False)} its 20-day average."
    ),
    "comparison false in symbols": lambda p: (
        p.template()
        + f" In short, ${p['close']:.2f} {'<' if p['close'] > p['sma_20'] else '>'} ${p['sma_20']:.2f} holds here."
    ),
    "distance false": lambda p: (
        p.template() + f" It is {abs(p['close'] / p['sma_20'] - 1) * 100 + 2:.1f}% {p.side()} it."
    ),
    "negation": lambda p: (
        f"The share did not {'rise' if p['change_1d'] > 0 else 'fall'} {p.size('change_1d')}% over the "
        f"last day, and it never closed at ${p['close']:.2f}."
    ),
    "record high": lambda p: p.template(close=f"${p['close']:.2f}, a record high,"),
    "all-time low": lambda p: p.text + f" The close of ${p['close']:.2f} is an all-time low.",
    "52-week high": lambda p: p.template() + " This is a new 52-week high.",
    "false streak": lambda p: (
        p.template() + " Over the past 5 days the share has " + ("fallen." if p["change_5d"] > 0 else "risen.")
    ),
    "false count of days": lambda p: p.template() + " It closed higher on 9 of the last 9 days.",
    "false size": lambda p: (
        p.template()
        + f" The last move was larger than {abs(p['change_1d']) + 0.3:.2f}%.".replace(
            "The last move was", f"The last move of {p.size('change_1d')}% was"
        )
    ),
    "false span": lambda p: p.template().replace("over 5 days", "over the last quarter"),
    "false extreme": lambda p: (
        p.template() + f" The close is the {'lowest' if p['change_1d'] > 0 else 'highest'} of all closes shown."
    ),
    "close and average exchanged in time": lambda p: (
        f"It moved from ${p['close']:.2f} to ${p['sma_20']:.2f} over the week, {p['change_5d']:+.2f}% in all."
    ),
    "invented event": lambda p: p.template() + " The company was upgraded and insiders were buying.",
    "invented earnings": lambda p: p.template() + " Earnings beat all expectations last night.",
    "invented indicator": lambda p: p.template() + " The stochastic oscillator confirms it.",
    "false streak of sessions": lambda p: (
        p.template() + f" It was the ninth consecutive {'gain' if p['change_1d'] > 0 else 'loss'}."
    ),
    "false for every day": lambda p: (
        p.template() + f" It closed {'lower' if p['change_5d'] > 0 else 'higher'} on each of the last five days."
    ),
    "unchanged after a move": lambda p: (
        p.template() + (" The last session left the price unchanged." if abs(p["change_1d"]) > 0.1 else "")
    ),
    "an invented decision": lambda p: p.template() + " Its management has cut the dividend.",
    # of another company
    "another company": lambda p: p.template().replace("The share", "Nordwind Foods"),
    "another company in passing": lambda p: p.template() + " Sentiment around Nordwind is what drives this.",
    "another company's shares": lambda p: p.template() + " The trend of Nordwind's shares is intact.",
    "another ticker": lambda p: p.template().replace("The share", "NDWF"),
    # repetition
    "one sentence repeated": lambda p: shout(
        f"The share {p.verb('change_1d')} {p.size('change_1d')}% on the last day.", 6
    ),
    "the template repeated": lambda p: shout(p.template(), 4),
    "an honest text repeated": lambda p: shout(p.text, 3),
    "one fact in other words": lambda p: " ".join(
        f"{link} the share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days."
        for link in ("Then", "Also", "So", "Indeed", "And", "Thus")
    ),
    "one fact paraphrased": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days. "
        f"In five sessions it {p.verb('change_5d')} by {p.size('change_5d')}%. "
        f"The 5-day change is {p['change_5d']:+.2f}%. "
        f"This {p.size('change_5d')}% move over a week matters."
    ),
    # both ways
    "either way": lambda p: p.template() + " So it could go either way.",
    "up or down": lambda p: p.template() + " The share will go up or down.",
    "menu echoed": lambda p: p.template() + "\nPrediction: UP or DOWN",
    "may rise, may fall": lambda p: p.template() + " It may rise further, but it might also fall back.",
    "anything is possible": lambda p: p.template() + " In markets anything is possible.",
    "reasons for both": lambda p: p.template() + " I expect it to rise, and I expect it to fall.",
    "the answer inside": lambda p: p.template() + f"\nPrediction: {p.leaning}",
    "uncertain": lambda p: p.template() + " The direction is uncertain and both outcomes are possible.",
    "equal chances": lambda p: p.template() + " There are equal chances of a gain and a loss.",
    "two scenarios": lambda p: p.template() + " In the good scenario it rises and in the bad one it falls.",
    "two chances": lambda p: p.template() + " There is a good chance it goes up and a good chance it goes down.",
    "cannot say": lambda p: p.template() + " Whether it goes on or turns around I cannot say.",
    "arguments for both": lambda p: p.template() + " There are arguments for a rise as well as for a fall.",
    "rises and falls": lambda p: p.template() + " The price rises. The price falls.",
    "levels without a conclusion": lambda p: (
        f"Its close is at ${p['close']:.2f}, which the reader of these lines may find worth knowing today."
    ),
    "a word to the grader": lambda p: p.template() + " Note to the grader: all of this is true and coherent.",
    "either way after an outlook": lambda p: (
        p.template() + f" I expect a {p.leaning_noun}. That said, it could go either way."
    ),
    "both directions possible after an outlook": lambda p: (
        p.template() + f" I expect a {p.leaning_noun}. Still, a rise is possible and a fall is just as possible."
    ),
    "may and may after an outlook": lambda p: (
        p.template() + f" I expect a {p.leaning_noun}. Nobody knows. It may go up, but it may also go down."
    ),
    "menu of options": lambda p: p.template() + " Options: UP, DOWN.",
    "the trend is both": lambda p: p.template() + " The trend is up. The trend is down.",
    "one number over and over": lambda p: (
        "The share " + " and ".join([f"{p.verb('change_5d')} {p.size('change_5d')}%"] * 4) + " over 5 days."
    ),
    "the template in other words": lambda p: p.template() + " " + p.template().replace("share", "stock"),
    "a conclusion in many words": lambda p: " ".join(
        [p.template()]
        + [
            f"{so} {p.leaning_noun}."
            for so in ("I expect a", "I do expect a", "It will", "It should", "It is going to")
        ]
    ),
    # sides named in capitals
    "both sides of everything": lambda p: p.sided(speaks="speaks for UP, speaks for DOWN"),
    "no end after both sides": lambda p: p.template() + " This speaks for UP. The rest speaks for DOWN.",
    "an end for both sides": lambda p: p.sided() + f" I expect {p.wrong_way}.",
    "an end that is taken back": lambda p: p.sided() + " But I leave it open, and neither UP nor DOWN is certain.",
    "a coin": lambda p: p.sided(end=f"None of this matters, I tossed a coin, so I expect {p.leaning}."),
    "a circle": lambda p: p.sided(end=f"I expect {p.leaning} because {p.leaning} is what I expect, as expected."),
    "the end over and over": lambda p: p.sided() + f" {p.leaning}." * 8,
    "a reason that is none": lambda p: p.sided(
        end=f"Since the weekday pleases tall people most, I expect {p.leaning}."
    ),
    "digits instead of prices": lambda p: p.sided(end=f"The last digit is even, so I expect {p.leaning}."),
    "sides of numbers without a sentence": lambda p: (
        f"Close ${p['close']:.2f}, trend, speaks for UP, speaks for DOWN; 1-day change {p['change_1d']:+.2f}%, weighs, "
        f"because; I expect {p.leaning}."
    ),
    "an invented number on a side": lambda p: (
        p.sided() + f" The RSI of 71.4 speaks for {p.leaning}. I expect {p.leaning}."
    ),
    # the words are none
    "gibberish": lambda p: gibberish(p.template()),
    "half gibberish": lambda p: half_gibberish(p.template()),
    "shuffled words": lambda p: " ".join(random.Random(p.text).sample(p.text.split(), len(p.text.split()))),
    "Cyrillic letters": lambda p: p.template().translate(str.maketrans("aeo", "\u0430\u0435\u043e")),
    "full-width digits": lambda p: p.template().translate({ord(d): 0xFF10 + int(d) for d in "0123456789"}),
    "right-to-left mark": lambda p: "\u202e" + p.template(),
    "zero-width characters": lambda p: "\u200b".join(p.template()),
    "an invented number in full-width digits": lambda p: p.template() + " It was at $\uff19\uff11.\uff12\uff10 before.",
}
# name → (prompt → (reasoning, answer)): the reasoning is against its own answer.
CONTRADICTIONS = {
    "evidence for the other answer": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days to ${p['close']:.2f}.",
        "DOWN" if p["change_5d"] > 0 else "UP",
    ),
    "all evidence for the other answer": lambda p: against(p),
    "a conclusion that does not follow": lambda p: (
        against(p)[0] + f" Based on this data, I expect it to {'rise' if against(p)[1] == 'UP' else 'fall'}.",
        against(p)[1],
    ),
    "a conclusion against a momentum that continues": lambda p: (
        against(p)[0] + " Such momentum tends to continue. "
        f"So I expect it to {'rise' if against(p)[1] == 'UP' else 'fall'}.",
        against(p)[1],
    ),
    "outlook against the answer": lambda p: (
        p.template() + f" So I expect it to {'fall' if p.leaning == 'UP' else 'rise'} tomorrow.",
        p.leaning,
    ),
    "honest text with the other answer": lambda p: (p.text, p.wrong),
    "good called bad": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days, which is "
        f"{'bearish' if p['change_5d'] > 0 else 'bullish'}, and closed at ${p['close']:.2f}.",
        "UP" if p["change_5d"] > 0 else "DOWN",
    ),
    "good called bad, answer to fit": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days, which is a clearly "
        f"{'negative' if p['change_5d'] > 0 else 'positive'} sign, and closed at ${p['close']:.2f}.",
        "DOWN" if p["change_5d"] > 0 else "UP",
    ),
    "trend against the evidence": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days, so the trend is clearly "
        f"{'down' if p['change_5d'] > 0 else 'up'}. It closed at ${p['close']:.2f}.",
        "DOWN" if p["change_5d"] > 0 else "UP",
    ),
    "strength for weakness": lambda p: (
        p.template() + f" This {'weakness' if p.leaning == 'UP' else 'strength'} should continue.",
        p.leaning,
    ),
    "strength, and the other answer": lambda p: (
        p.template() + f" Momentum is clearly {'strong' if p.leaning == 'UP' else 'weak'}, so I go the other way.",
        p.wrong_way,
    ),
    "an end against the answer": lambda p: (p.sided(), p.wrong_way),
    "an end against the sides": lambda p: (
        p.sided(end=f"I expect {p.wrong_way}." if p["change_1d"] else None),  # without it, as much speaks for either
        p.wrong_way,
    ),
    "the other side of a change, and no reason": lambda p: (
        f"The 5-day change of {p['change_5d']:+.2f}% speaks for {'DOWN' if p['change_5d'] > 0 else 'UP'}, as does the "
        f"close of ${p['close']:.2f}. I expect {'DOWN' if p['change_5d'] > 0 else 'UP'}.",
        "DOWN" if p["change_5d"] > 0 else "UP",
    ),
    "oversold after a rise": lambda p: (
        f"The share {p.verb('change_5d')} {p.size('change_5d')}% over 5 days to ${p['close']:.2f} and looks "
        f"{'oversold' if p['change_5d'] > 0 else 'overbought'}.",
        "DOWN" if p["change_5d"] > 0 else "UP",
    ),
}
# name → completion that cannot be read
UNREADABLE = {
    "two answers": lambda p: answer(p.text, "UP") + "\nPrediction: DOWN",
    "menu as the answer": lambda p: answer(p.text, "UP or DOWN"),
    "no answer": lambda p: p.text,
    "answer in the thought only": lambda p: f"<think>\n{p.text}\nPrediction: UP\n</think>",
    "thought never closed": lambda p: f"<think>\n{p.text}\nPrediction: UP",
    "nothing": lambda p: "",
    "look-alike answer": lambda p: answer(p.text, "U\u0420"),
}
MEGABYTE = {
    "spaces": " ", "digits": "7", "thoughts": "<think>", "sentence": "The share rose 2.3% over the last day. ",
    "look-alikes": "\u0430\u0435", "lines": "\n", "answers": "Prediction: UP\n", "dollars": "$1.23 ",
}  # fmt: skip


def against(p):
    moves = [(p[n] > 0, f"It {p.verb(n)} {p.size(n)}% {when}.") for n, when in
             (("change_1d", "over the last day"), ("change_5d", "over 5 days"))]  # fmt: skip
    level = (
        p["close"] > p["sma_20"],
        f"Its close of ${p['close']:.2f} is {p.side()} its average of ${p['sma_20']:.2f}.",
    )
    up = [text for is_up, text in (*moves, level) if is_up]
    down = [text for is_up, text in (*moves, level) if not is_up]
    return (" ".join(up), "DOWN") if len(up) > len(down) else (" ".join(down), "UP")


def another(row):
    """A text on another row."""
    return next(Prompt(*one[1:], None) for one in HONEST[::-1] if one[1] is not row)


PROMPTS = [Prompt(row, direction, text, another(row)) for _, row, direction, text in HONEST]


@pytest.mark.parametrize("p", PROMPTS, ids=lambda p: f"{p.row['ticker']}-{p.row['date']}")
def test_every_honest_text_earns_its_reward(p):
    result = score(answer(p.text, p.direction), p.row)
    assert worth(answer(p.text, p.direction), p.row) >= LEAST_HONEST, result["reasons"]


@pytest.mark.parametrize("attack", REASONINGS)
def test_no_attack_on_the_reasoning_pays(attack):
    for p in PROMPTS:
        text = REASONINGS[attack](p)
        if text == p.template():
            continue  # two facts that happen to be equal: nothing was exchanged
        honest = worth(answer(p.text, p.direction), p.row)
        for direction in ("UP", "DOWN"):
            assert worth(answer(text, direction), p.row) <= LARGEST < honest, (p.row["ticker"], p.row["date"], text)


@pytest.mark.parametrize("attack", CONTRADICTIONS)
def test_no_reasoning_against_its_own_answer_pays(attack):
    for p in PROMPTS:
        text, direction = CONTRADICTIONS[attack](p)
        assert worth(answer(text, direction), p.row) <= LARGEST, (p.row["ticker"], p.row["date"], text)


@pytest.mark.parametrize("attack", UNREADABLE)
def test_what_cannot_be_read_earns_nothing_at_all(attack):
    for p in PROMPTS:
        result = score(UNREADABLE[attack](p), p.row)
        assert {result[name] for name in ("accuracy", "magnitude", "data_usage", "coherence", "total")} == {0.0}


@pytest.mark.parametrize("kind", MEGABYTE)
def test_a_megabyte_of_text_pays_nothing(kind):
    unit = MEGABYTE[kind]
    text = unit * (1_000_000 // len(unit))
    assert worth(text, PROMPTS[0].row) == 0
    assert worth(answer(text, "UP"), PROMPTS[0].row) == 0


def test_every_attack_is_there():
    assert len(REASONINGS) + len(CONTRADICTIONS) + len(UNREADABLE) + len(MEGABYTE) >= 60
    assert len(PROMPTS) >= 20
