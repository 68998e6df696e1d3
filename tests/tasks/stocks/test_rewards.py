import time

import pytest

from stonk_trainer.tasks.stocks.facts import Fact, facts_to_json
from stonk_trainer.tasks.stocks.rewards import COMPONENTS, reward_functions, score

FACTS = (
    Fact("close_3d_ago", 172.0, "usd", "$172.00"),
    Fact("close_2d_ago", 172.4, "usd", "$172.40"),
    Fact("close_1d_ago", 171.58, "usd", "$171.58"),
    Fact("open", 174.0, "usd", "$174.00"),
    Fact("close", 175.53, "usd", "$175.53"),
    Fact("change_1d", 2.3, "percent", "+2.30%"),
    Fact("change_5d", 4.1, "percent", "+4.10%"),
    Fact("change_10d", -1.2, "percent", "-1.20%"),
    Fact("change_20d", -5.4, "percent", "-5.40%"),
    Fact("sma_5", 170.4, "usd", "$170.40"),
    Fact("sma_20", 171.8, "usd", "$171.80"),
    Fact("volatility_20d", 1.5, "percent", "1.50%"),
    Fact("volume", 53.2e6, "count", "53.20M"),
)
SEED_FACTS = (
    Fact("close_2d_ago", 150.0, "usd", "$150.00"),
    Fact("close_1d_ago", 153.5, "usd", "$153.50"),
    Fact("close", 156.2, "usd", "$156.20"),
)
HONEST = "The share rose 2.3% today and 4.1% over 5 days. Its close of $175.53 is above its 20-day average of $171.80."


def row(facts=FACTS, label="UP", next_return=0.012, base_rate_up=0.5):
    return {"label": label, "next_return": next_return, "facts": facts_to_json(facts), "base_rate_up": base_rate_up}


def answer(reasoning, direction="UP", move="1.2%", confidence="63%"):
    return f"<think>\n{reasoning}\n</think>\nPrediction: {direction}\nExpected move: {move}\nConfidence: {confidence}"


def of_reasoning(reasoning, direction="UP", facts=FACTS):
    """The two rewards of the reasoning, as Stage I weighs them: at most 0.4."""
    return score(answer(reasoning, direction), row(facts), weights={"data_usage": 0.2, "coherence": 0.2})["total"]


def test_the_good_example_of_the_readme_earns_nearly_everything_and_the_bad_one_nothing():
    good = "AAPL closed at $150.00 two days ago, rose to $153.50 and then to $156.20, a gain of 4.1% over two days."
    assert of_reasoning(good, facts=SEED_FACTS) > 0.3
    assert of_reasoning("It will go up.", facts=SEED_FACTS) < 0.05
    falling = [
        Fact(fact.name, value, fact.unit, f"${value}")
        for fact, value in zip(SEED_FACTS, (156.2, 153.5, 150.0), strict=True)
    ]
    assert of_reasoning("It will go up.", facts=falling) == 0


def test_honest_reasoning_earns_full_marks_for_data_and_coherence():
    result = score(answer(HONEST), row())
    assert (result["data_usage"], result["coherence"], result["grounded"]) == (1, 1, 4)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            "The share rose 7.7% today and 9.2% over 5 days. "
            "Its close of $191.20 is above its 20-day average of $180.10.",
            id="invented",
        ),
        pytest.param(
            "The share fell 2.3% today and 4.1% over 5 days. "
            "Its close of $175.53 is below its 20-day average of $171.80.",
            id="sign flipped",
        ),
        pytest.param(
            "The share rose $2.3 today and $4.1 over 5 days. "
            "Its close of 175.53% is above its 20-day average of 171.80%.",
            id="unit swapped",
        ),
        pytest.param(
            "The share rose 2.34% today and 4.12% over 5 days. Its close of $175.53 is above its average of $171.84.",
            id="false precision",
        ),
        pytest.param(
            "The share rose 2.3% over 5 days and 4.1% today. "
            "Its close of $171.80 is above its 20-day average of $175.53.",
            id="facts exchanged",
        ),
        pytest.param(
            "The share changed 0% over 10 days, about 0% over 20 days and about 0% today, which points up.",
            id="rounded away",
        ),
        pytest.param("\n".join(f"{fact.name}: {fact.shown}" for fact in FACTS), id="facts as lines"),
        pytest.param(
            "Open: $174.00\nClose: $175.53\n1-day change: +2.30%\n5-day change: +4.10%\n20-day average: $171.80",
            id="prompt copied",
        ),
        pytest.param("The facts are " + ", ".join(fact.shown for fact in FACTS), id="bare numbers"),
        pytest.param("The share rose 2.3% today, a good day for it. " * 6, id="one sentence repeated"),
        pytest.param(HONEST + " It will rise. It will fall.", id="both outlooks"),
        pytest.param(HONEST + " So it could go either way.", id="either way"),
        pytest.param(HONEST + " It may rise, but it might fall.", id="hedged"),
        pytest.param(HONEST + " So I think it will fall.", id="outlook against the answer"),
        pytest.param("up 2.3%, up 4.1%, above $171.80", id="no sentence"),
        pytest.param(
            "The share fell 1.2% over 10 days and 5.4% over 20 days, which is a clear trend.",
            id="evidence against the answer",
        ),
        pytest.param(
            "My confidence is 63% and the expected move is 1.2%, which the data of the share support well.",
            id="own numbers",
        ),
        pytest.param(
            HONEST.replace("2.3", "\uff12.\uff13").replace("close", "cl\u043ese").replace("average", "\u0430verage"),
            id="look-alikes",
        ),
        pytest.param(HONEST + " " + "It was $1.11 or 2.22% or $3.33 or 4.44% of all. " * 3, id="diluted with noise"),
        pytest.param(
            "The share is at $170, $171, $172, $173, $174, $175, $176 and $177, up from its 20-day average of $171.80.",
            id="guessing",
        ),
    ],
)
def test_no_attack_on_the_reasoning_earns_what_honest_reasoning_earns(attack):
    assert of_reasoning(attack) <= 0.75 * of_reasoning(HONEST)


def test_listing_every_fact_in_sentences_earns_less_than_choosing_a_few():
    everything = (
        "The share closed at $175.53 today. It opened at $174.00 on the day. It closed at $171.58 one day ago. "
        "It closed at $172.40 two days ago. It closed at $172.00 three days ago. It rose 2.3% over the day. "
        "It rose 4.1% over 5 days. It fell 1.2% over 10 days. It fell 5.4% over 20 days. "
        "Its 5-day average is at $170.40. Its 20-day average is at $171.80. "
        "Its volatility is at 1.50% per day. Its volume was 53.2M on the day."
    )
    listed, honest = score(answer(everything), row()), score(answer(HONEST), row())
    assert listed["grounded"] == len(FACTS)
    assert listed["data_usage"] < 0.7 * honest["data_usage"]
    assert listed["coherence"] < honest["coherence"]


@pytest.mark.parametrize(
    "completion",
    [
        HONEST,
        f"<think>{HONEST}\nPrediction: UP</think>",
        f"<think>{HONEST}</think>\nPrediction: UP or DOWN",
        f"<think>{HONEST}</think>\nPrediction: UP\nPrediction: DOWN",
        f"<think>{HONEST}\nPrediction: UP",
    ],
)
def test_without_one_readable_answer_everything_is_zero_and_the_problem_is_named(completion):
    result = score(completion, row())
    assert [result[name] for name in (*COMPONENTS, "total")] == [0] * 5
    assert result["problem"] and result["forecast"] is None


def test_mixed_evidence_lies_between_and_evidence_for_neither_side_supports_nothing():
    mixed = "The share rose 2.3% today and 4.1% over 5 days, and it fell 5.4% over 20 days in all."
    neutral = "The share closed at $175.53 with a 20-day volatility of 1.50% on a volume of 53.2M, which shows little."
    tie = "The share rose 4.1% over 5 days, and it fell 5.4% over 20 days, and it closed at $175.53 today."
    assert 0.5 < score(answer(mixed), row())["coherence"] < 1
    assert score(answer(mixed, "DOWN"), row())["coherence"] < 0.1
    for text in (neutral, tie):
        for direction in ("UP", "DOWN"):
            assert of_reasoning(text, direction) < 0.1
    assert score(answer(tie + " I expect it to rise."), row())["coherence"] == 0.5


def test_a_risk_named_beside_a_firm_outlook_is_not_a_contradiction():
    assert score(answer(HONEST + " It could fall on bad news, but it will likely rise."), row())["coherence"] == 1


@pytest.mark.parametrize(
    "text, direction",
    [
        ("The share rose 2.3% today and 4.1% over 5 days, so a pullback is likely.", "DOWN"),
        ("The share rose 2.3% today and 4.1% over 5 days, so no pullback is likely.", "UP"),
        ("The share fell 5.4% over 20 days and looks oversold to me here.", "UP"),
        ("The share fell 5.4% over 20 days. That move is overdone, I expect a bounce.", "UP"),
        ("The share fell 5.4% over 20 days, which invites mean reversion in my view.", "UP"),
        ("The share rose 2.3% today, and it is no longer oversold after that.", "UP"),
    ],
)
def test_a_move_read_as_overdone_is_evidence_for_the_other_side(text, direction):
    other = "DOWN" if direction == "UP" else "UP"
    assert score(answer(text, direction), row())["coherence"] == 1
    assert score(answer(text, other), row())["coherence"] < 0.1


@pytest.mark.parametrize(
    "text, direction",
    [
        ("The share fell 5.4% over 20 days. Declines of this size seldom last, so I expect a rise.", "UP"),
        ("The share fell 5.4% in 20 days. I think it has fallen too fast. So I go with up.", "UP"),
        ("The share rose 4.1% over 5 days. I expect buyers to hesitate, which should lead to a lower close.", "DOWN"),
        ("The share rose 4.1% in five days. A path this steep cannot be kept up. I forecast a step down.", "DOWN"),
        ("After rising 4.1% in five days it looks expensive. Which is why the next close will be lower.", "DOWN"),
        ("The trend is up, with 4.1% in 5 days, yet I prefer to bet on the way back: lower tomorrow.", "DOWN"),
    ],
)
def test_a_conclusion_opposite_to_a_move_may_be_argued_for(text, direction):
    other = "DOWN" if direction == "UP" else "UP"
    assert score(answer(text, direction), row())["coherence"] >= 0.75
    assert score(answer(text, other), row())["coherence"] <= 0.2


@pytest.mark.parametrize("word", ["oversold", "due for a rebound", "cheap"])
def test_a_rise_cannot_be_called_oversold(word):
    text = f"The share rose 2.3% today and 4.1% over 5 days to $175.53 and is {word} now."
    assert score(answer(text, "DOWN"), row())["coherence"] < 0.1


def test_the_same_fact_cited_again_counts_once():
    result = score(
        answer("The share rose 2.3% today. A gain of 2.3% in one day is good, and I trust it to last."), row()
    )
    assert result["grounded"] == 1
    assert result["data_usage"] == pytest.approx(1 / 3)


def test_direction_accuracy_is_one_or_zero_and_calibrated_accuracy_is_the_brier_score():
    assert score(answer(HONEST), row())["accuracy"] == 1
    assert score(answer(HONEST, "DOWN"), row())["accuracy"] == 0
    assert score(answer(HONEST), row(), accuracy="calibrated")["accuracy"] == pytest.approx(1 - 0.37**2)
    assert score(answer(HONEST, "DOWN"), row(), accuracy="calibrated")["accuracy"] == pytest.approx(1 - 0.63**2)
    assert score("Prediction: UP", row(), accuracy="calibrated")["accuracy"] == pytest.approx(0.75)


@pytest.mark.parametrize("probability", [0.5, 0.6, 0.8])
def test_calibrated_accuracy_is_greatest_in_expectation_for_the_true_probability(probability):
    def expected(percent):
        up, down = (
            score(f"Prediction: UP\nConfidence: {percent}%", row(label=x), accuracy="calibrated")["accuracy"]
            for x in ("UP", "DOWN")
        )
        return probability * up + (1 - probability) * down

    assert max(range(0, 101, 5), key=expected) == pytest.approx(100 * probability)


@pytest.mark.parametrize("base_rate_up", [0.3, 0.5, 0.54, 0.7])
def test_with_skew_awareness_always_up_and_always_down_earn_the_same(base_rate_up):
    def expected(direction):
        up, down = (
            score(f"Prediction: {direction}", row(label=x, base_rate_up=base_rate_up), skew_aware=True)["accuracy"]
            for x in ("UP", "DOWN")
        )
        assert 0 <= up <= 1 and 0 <= down <= 1
        return base_rate_up * up + (1 - base_rate_up) * down

    assert expected("UP") == pytest.approx(expected("DOWN"))


def test_magnitude_pays_for_a_near_move_in_the_right_direction_only():
    assert score(answer(HONEST, move="1.2%"), row())["magnitude"] == pytest.approx(1)
    assert score(answer(HONEST, move="2.7%"), row())["magnitude"] == pytest.approx(
        0.5
    )  # one daily volatility of 1.5 % off
    assert score(answer(HONEST, move="9%"), row())["magnitude"] == 0
    assert score(answer(HONEST, "DOWN"), row())["magnitude"] == 0
    assert score("Prediction: UP", row())["magnitude"] == 0
    assert score(answer(HONEST, move="3.2%"), row(SEED_FACTS))["magnitude"] == pytest.approx(
        0.5
    )  # 2 % where none is shown


def test_total_is_the_weighted_sum_and_the_mean_without_weights():
    result = score(answer(HONEST), row(), weights={"accuracy": 0.6, "data_usage": 0.4})
    assert result["total"] == pytest.approx(0.6 * result["accuracy"] + 0.4 * result["data_usage"])
    plain = score(answer(HONEST), row())
    assert plain["total"] == pytest.approx(sum(plain[name] for name in COMPONENTS) / 4)


def test_the_score_explains_each_claim_and_component():
    result = score(answer("The share rose 2.3% today and closed at $199.00, a record for it."), row())
    assert [(claim["text"], claim["fact"], claim["grounded"]) for claim in result["claims"]] == [
        ("2.3%", "change_1d", True),
        ("$199.00", None, False),
        ("record", None, False),
    ]
    assert all(claim["why"] for claim in result["claims"])
    assert set(result["reasons"]) == set(COMPONENTS)


def test_reward_functions_give_what_score_gives_for_conversations_and_strings():
    rows = [row(), row(label="DOWN"), row(SEED_FACTS)]
    texts = [answer(HONEST), answer(HONEST, "DOWN"), "no answer"]
    columns = {key: [r[key] for r in rows] for key in rows[0]}
    names = ["coherence", "accuracy", "magnitude", "data_usage"]
    functions = reward_functions(names, accuracy="calibrated", skew_aware=True)
    assert [function.__name__ for function in functions] == names
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    for name, function in zip(names, functions, strict=True):
        expected = [score(t, r, accuracy="calibrated", skew_aware=True)[name] for t, r in zip(texts, rows, strict=True)]
        assert function(conversations, **columns, prompts=["p"] * 3, trainer_state=None) == expected
        assert function(texts, **columns) == expected


def test_unknown_names_are_refused_with_the_choices():
    for call in (
        lambda: reward_functions(["acuracy"]),
        lambda: reward_functions(["accuracy"], accuracy="brier"),
        lambda: score("Prediction: UP", row(), accuracy="brier"),
        lambda: score("Prediction: UP", row(), weights={"format": 1}),
    ):
        with pytest.raises(ValueError, match="choose from"):
            call()


@pytest.mark.parametrize("unit", ["rose 2.3% ", "$175.53 ", "will rise ", "a. ", "expect a ", "\n"])
def test_a_megabyte_of_reasoning_takes_less_than_a_second_and_earns_nothing_for_it(unit):
    text = answer(unit * (1_000_000 // len(unit)))
    start = time.process_time()
    result = score(text, row())
    assert time.process_time() - start < 1
    assert (result["data_usage"], result["coherence"]) == (0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "Apple rose 2.3% today and 4.1% over 5 days. I expect Apple to rise.",
        "AAPL rose by 2.3% today. The trend of Apple's shares is up, so I expect a gain on Friday.",
        "Aple Inc. rose 2.3% today and 4.1% over 5 days. I expect a rise.",
        "Enthusiasm is high after a rise of 2.3% today. Wall Street rewards this, so I expect a rise.",
    ],
)
def test_the_company_of_the_prompt_may_be_named(text):
    assert score(answer(text), row())["coherence"] == 1


def test_facts_listed_first_count_once_they_are_spoken_of():
    text = (
        "Close: $175.53\n20-day average: $171.80\n5-day change: +4.10%\n\n"
        "The close is above its 20-day average. The share has gained 4.1% over 5 days, so I expect a rise."
    )
    assert score(answer(text), row())["data_usage"] == 1


# What two authors wrote who had not seen the reader: texts misread at first.
READ_RIGHT = [
    (HONEST + " Close to a coin flip, but slightly up.", "UP"),
    (HONEST + " Momentum is not running out, so I choose UP.", "UP"),
    ("Today brought a gain of 2.3% to $175.53. It went from $171.58 to $175.53 in a single session.", "UP"),
    ("It gained $3.95 in one day, from $171.58 to $175.53, and sits above its 20-day average of $171.80.", "UP"),
    ("It has risen from $172.00 three days ago and is above its 5-day average of $170.40, up 4.1% in 5 days.", "UP"),
    (
        "The 2.3% rise is small next to the slide of 5.4% over 20 days, and it lost 1.2% in 10 days. "
        "I expect it to cool off.",
        "DOWN",
    ),
    ("A rise of 2.3% in a day and of 4.1% in five is extreme. A pullback is a reasonable bet.", "DOWN"),
    (
        "After 2.3% today and 4.1% over 5 days a pullback after such a steep bounce seems more likely than a second "
        "straight gain.",
        "DOWN",
    ),
    ("It is down 1.2% over ten days and 5.4% over twenty. The close of $175.53 comes after that.", "DOWN"),
    ("At $175.53 it stands $3.73 above its 20-day average. I expect a small move back toward its average.", "DOWN"),
    ("It closed at $175.53, up 2.3% on the day; the shares found support at $172.00 around three days ago.", "UP"),
    ("The 20-day volatility is 1.50% and the share is still 5.4% lower than 20 days ago, at $175.53.", "DOWN"),
]
READ_THROUGH = [
    (HONEST + " Then again the opposite is just as likely and it may well go down.", "UP"),
    (HONEST + " None of this has any bearing on tomorrow.", "UP"),
    (HONEST + " I did not use this data.", "UP"),
    ("It closed at $175.53 after a ten percent gain today. It is above its 20-day average of $171.80.", "UP"),
    ("It has lost half of its value in 20 days, a fall of 5.4%, and is at $175.53 now.", "DOWN"),
    ("It rose 4.1% in the past hour and closed at $175.53, so the trend should continue.", "UP"),
    ("It closed at $3.73, which is $175.53 above its 20-day average of $171.80. It rose 2.3% today.", "UP"),
    ("The close of $175.53 is above the average of $171.80. It rained on Sunday, so my answer is UP.", "UP"),
    ("In the past ten years the share rose after each gain. It closed at $175.53, above the $171.80 average.", "UP"),
    (
        "The data show that the close is $175.53, the 1-day change is +2.30%, the 5-day change is +4.10%, the 20-day "
        "average is $171.80, so I predict UP.",
        "UP",
    ),
    ("It rose 2.3% today to $175.53, and 0.82% on its 20-day average of $171.80.", "UP"),
]


@pytest.mark.parametrize("text, direction", READ_RIGHT)
def test_honest_ways_of_putting_it_are_read_right(text, direction):
    assert of_reasoning(text, direction) > 0.2


@pytest.mark.parametrize("text, direction", READ_THROUGH)
def test_second_thoughts_and_reasons_that_are_none_are_read_through(text, direction):
    assert of_reasoning(text, direction) <= 0.1
