"""What must hold for any text and any row, found by trying."""

import json
import math
import re

import pytest
from honest_texts import answer, honest_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks import score

COMPONENTS = ("accuracy", "magnitude", "data_usage", "coherence", "total")
HONEST = honest_rows()
WORDS = (
    "the share rose fell 2.3% $76.20 over 5 days . , \n closed above below its 20-day average of will not up or down"
    " <think> </think> Prediction: UP DOWN Confidence: 63% Expected move: 1.2% oversold bearish 53.2M 14% although -"
).split(" ")
honest = st.sampled_from(HONEST)


def of_reasoning(text, direction, row):
    return score(answer(text, direction), row, weights={"data_usage": 0.2, "coherence": 0.2})["total"]


@settings(max_examples=150)
@given(
    st.one_of(st.text(max_size=300), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)),
    honest,
    st.booleans(),
    st.sampled_from(["direction", "calibrated"]),
    st.booleans(),
)
def test_any_text_gives_finite_rewards_between_zero_and_one(text, case, in_form, accuracy, skew_aware):
    completion = answer(text, "UP") if in_form else text
    result = score(completion, case[1], accuracy=accuracy, skew_aware=skew_aware)
    assert all(math.isfinite(result[name]) and 0 <= result[name] <= 1 for name in COMPONENTS)
    for claim in result["claims"]:
        assert claim["start"] is None or completion[claim["start"] : claim["end"]] == claim["text"]


@settings(max_examples=40)
@given(honest)
def test_scoring_is_deterministic(case):
    _, row, direction, text = case
    assert score(answer(text, direction), dict(row)) == score(answer(text, direction) + "", dict(row))


# Of a row with history a change follows from two closes as well, so that perturbing one fact leaves a text true.
@settings(max_examples=60)
@given(st.sampled_from([case for case in HONEST if case[0] == "demo"]), st.data())
def test_a_text_loses_credit_when_a_fact_it_cites_was_another(case, data):
    _, row, direction, text = case
    facts = json.loads(row["facts"])
    claims = score(answer(text, direction), row)["claims"]
    cited = sorted({claim["fact"] for claim in claims if claim["grounded"]} & {f["name"] for f in facts if f["value"]})
    numeric = [name for name in cited if not name.startswith("headline")]
    name = data.draw(st.sampled_from(numeric))
    for fact in facts:
        if fact["name"] == name:
            fact["value"] = round(fact["value"] * 1.37, 2)
            fact["shown"] = re.sub(r"[\d.]+", lambda match: f"{float(match[0]) * 1.37:.2f}", fact["shown"])
    other = {**row, "facts": json.dumps(facts)}
    assert of_reasoning(text, direction, other) < of_reasoning(text, direction, row)


@settings(max_examples=60)
@given(honest, st.sampled_from(["$812.37", "31.4%", "$9.7 billion", "77.3M", "-18.31%"]), st.data())
def test_an_invented_number_never_raises_the_reward(case, number, data):
    _, row, direction, text = case
    tail = data.draw(
        st.sampled_from(
            [
                "The level of {} matters.",
                "It was at {} before that.",
                "The 50-day average is {}.",
                "Analysts expect {}.",
                "Volume was {}.",
                "{}",
            ]
        )
    )
    more = text + " " + tail.format(number)
    assert of_reasoning(more, direction, row) <= of_reasoning(text, direction, row)


REFERS_BACK = re.compile(r"\b(?:that|this|these|it|however|which|overall|conclusion)\b", re.I)
INDEPENDENT = [case for case in HONEST if not REFERS_BACK.search(case[3])]


@settings(max_examples=40)
@given(honest, st.randoms(use_true_random=False))
def test_the_order_of_sentences_does_not_change_what_they_cite(case, rng):
    _, row, direction, text = case
    sentences = re.split(r"(?<=[a-z)\d][.;]) ", text.replace("\n", " "))
    rng.shuffle(sentences)
    before, after = (score(answer(x, direction), row) for x in (text, " ".join(sentences)))
    if INDEPENDENT and case in INDEPENDENT:
        assert after["coherence"] == pytest.approx(before["coherence"])
    assert after["grounded"] == before["grounded"]


@pytest.mark.parametrize("skew_aware", [False, True])
@pytest.mark.parametrize("base_rate_up", [0.3, 0.5, 0.54, 0.7])
def test_the_best_confidence_under_calibrated_accuracy(base_rate_up, skew_aware):
    """Without weights the truth is best. With them the truth is best once both directions are made equally likely:
    of P(UP) = q that is q / b over q / b + (1 - q) / (1 - b), the odds of q divided by the odds of the base rate."""
    row = HONEST[0][1]
    for percent in range(5, 100, 10):
        q = percent / 100
        expected = {}
        for stated in range(0, 101):
            up, down = (
                score(
                    f"Prediction: UP\nConfidence: {stated}%",
                    {**row, "label": label, "base_rate_up": base_rate_up},
                    accuracy="calibrated",
                    skew_aware=skew_aware,
                )["accuracy"]
                for label in ("UP", "DOWN")
            )
            expected[stated] = q * up + (1 - q) * down
        odds = q / (1 - q) / (base_rate_up / (1 - base_rate_up) if skew_aware else 1)
        assert max(expected, key=expected.get) == pytest.approx(100 * odds / (1 + odds), abs=0.51)


@pytest.mark.parametrize("base_rate_up", [0.1, 0.3, 0.45, 0.5, 0.54, 0.7, 0.9])
@pytest.mark.parametrize("accuracy", ["direction", "calibrated"])
@pytest.mark.parametrize("confidence", [50, 63, 100])
def test_with_skew_awareness_neither_direction_pays_more_by_itself(base_rate_up, accuracy, confidence):
    def expected(direction):
        up, down = (
            score(
                f"Prediction: {direction}\nConfidence: {confidence}%",
                {**HONEST[0][1], "label": label, "base_rate_up": base_rate_up},
                accuracy=accuracy,
                skew_aware=True,
            )["accuracy"]
            for label in ("UP", "DOWN")
        )
        return base_rate_up * up + (1 - base_rate_up) * down

    assert expected("UP") == pytest.approx(expected("DOWN"))


@pytest.mark.parametrize(
    "broken",
    [
        {"facts": "no json"},
        {"facts": "[1, 2]"},
        {"facts": '[{"name": "close"}]'},
        {"facts": None},
        {"label": None},
        {"next_return": None},
    ],
)
def test_a_malformed_row_is_named(broken):
    _, row, direction, text = HONEST[0]
    key = next(iter(broken))
    with pytest.raises(ValueError, match=key):
        score(answer(text, direction), {**row, **broken})
    with pytest.raises(ValueError, match=key):
        score(answer(text, direction), {name: value for name, value in row.items() if name != key})
