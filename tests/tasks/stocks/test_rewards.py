import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonk_trainer.tasks.stocks.facts import Fact, facts_to_json
from stonk_trainer.tasks.stocks.rewards import COMPONENTS, Scorer, score

FACTS = (
    Fact("close_1d_ago", 171.58, "usd", "$171.58"),
    Fact("close", 175.53, "usd", "$175.53"),
    Fact("change_1d", 2.3, "percent", "+2.30%"),
    Fact("change_5d", 4.1, "percent", "+4.10%"),
    Fact("change_20d", -5.4, "percent", "-5.40%"),
    Fact("sma_20", 171.8, "usd", "$171.80"),
    Fact("volatility_20d", 1.5, "percent", "1.50%"),
)
THREE_CLOSES = (
    Fact("close_2d_ago", 150.0, "usd", "$150.00"),
    Fact("close_1d_ago", 153.5, "usd", "$153.50"),
    Fact("close", 156.2, "usd", "$156.20"),
)
THOUGHT = "The share has gained over the week and is above its monthly average, so I expect UP."
LINES = ("1-day change | +2.30% | UP", "Close vs 20-day average | above | UP", "20-day change | -5.40% | DOWN")


def row(facts=FACTS, label="UP", next_return=0.012, base_rate_up=0.5):
    return {"label": label, "next_return": next_return, "facts": facts_to_json(facts), "base_rate_up": base_rate_up}


def answer(*lines, thought=THOUGHT, direction="UP", move="1.2%", confidence="63%"):
    evidence = "".join(f"- {line}\n" for line in lines)
    return (
        f"<think>\n{thought}\n</think>\nEvidence:\n{evidence}"
        f"Prediction: {direction}\nExpected move: {move}\nConfidence: {confidence}"
    )


def prose(reasoning, direction="UP"):
    return f"<think>\n{reasoning}\n</think>\nPrediction: {direction}"


def of_reasoning(text, facts=FACTS, evidence="required"):
    """The two rewards of the reasoning, as Stage I weighs them: at most 0.4."""
    return score(text, row(facts), evidence=evidence, weights={"data_usage": 0.2, "coherence": 0.2})["total"]


# ------------------------------------------------------------------------------------------------------ evidence


def test_true_lines_from_both_sides_that_point_to_the_answer_earn_everything():
    result = score(answer(*LINES), row())
    assert (result["data_usage"], result["coherence"], result["grounded"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "lines, data_usage",
    [
        (LINES[:1], 1 / 3),  # one fact of three
        (LINES[1:2], 2 / 3),  # two facts, in one line
        (LINES[:2], 1),
        ((*LINES[:1], "Close | $1 | UP"), 1 / 2 * 1 / 3),
        ((*LINES, "10-day change | +1.00% | UP"), 3 / 4),
        ((*LINES, "5-day change +4.10% UP"), 3 / 4),
        ((*LINES, LINES[0]), 3 / 4),
        ((*LINES[1:2], "Close | $175.53 | UP", "20-day average | $171.80 | UP"), 2 / 3),  # cited already
        ((), 0),
    ],
)
def test_data_usage_is_the_share_of_grounded_lines_times_the_facts_they_cite(lines, data_usage):
    assert score(answer(*lines), row())["data_usage"] == pytest.approx(data_usage)


def test_fewer_facts_suffice_where_the_prompt_shows_fewer():
    one = (Fact("close", 10.0, "usd", "$10.00"),)
    assert score(answer("Close | $10.00 | UP"), row(one))["data_usage"] == 1


@pytest.mark.parametrize(
    "thought, share",
    [("It closed at $175.53, a rise of 2.3%.", 0), ("It rose 2.3%, 8% in all.", 1 / 2), ("It rose 8% to $99.", 1)],
)
def test_invented_numbers_in_the_thought_take_their_share_of_both(thought, share):
    result = score(answer(*LINES, thought=f"{thought} The rest of this has eight words."), row())
    assert result["data_usage"] == result["coherence"] == pytest.approx(1 - share)


@pytest.mark.parametrize(
    "lines, direction, coherence",
    [
        (LINES, "DOWN", 0),
        (LINES[1:], "UP", 0),  # a draw
        (("20-day change | -5.40% | UP", "1-day change | +2.30% | NEUTRAL"), "UP", 1),  # contrarian readings are free
        ((LINES[0], "Close | $1 | DOWN", "Open | $1 | DOWN"), "UP", 1 / 3),  # only grounded lines have a side
        (("1-day change | +2.30% | NEUTRAL",), "UP", 0),
    ],
)
def test_coherence_needs_more_grounded_lines_for_the_answer_than_against(lines, direction, coherence):
    thought = "The share has been weak and strong in turn, and this decides it."
    assert score(answer(*lines, thought=thought, direction=direction), row())["coherence"] == pytest.approx(coherence)


@pytest.mark.parametrize(
    "thought, why",
    [
        ("It will rise.", "fewer than 8 words"),
        ("", "fewer than 8 words"),
        ("- - - - - - - - - -", "fewer than 8 words"),
        ("The share looks strong. I am sure of it. The share looks strong.", "repeats a sentence"),
        ("The share looks strong!\nthe share looks strong\nand that is all there is", "repeats a sentence"),
        ("Most of what is shown here points to UP, and yet I say DOWN", "ends with DOWN"),
    ],
)
def test_an_unsound_thought_halves_coherence(thought, why):
    result = score(answer(*LINES, thought=thought), row())
    assert result["coherence"] == 0.5 and why in result["reasons"]["coherence"]
    assert result["data_usage"] == 1


def test_a_thought_may_speak_of_both_sides_and_of_ups_and_downs():
    thought = "It could go DOWN on bad news, Upside is small, UPS is another company. On balance UP."
    assert score(answer(*LINES, thought=thought), row())["coherence"] == 1


def test_one_true_line_and_seven_false_earn_little():
    false = [f"{name} | $1.00 | UP" for name in ("Close", "Open", "A", "B", "C", "D", "E")]
    assert of_reasoning(answer(LINES[0], *false)) == pytest.approx(0.2 * (1 / 8) * (1 / 3) + 0.2 * (1 / 8))


def test_the_known_example_of_prose_earns_where_evidence_is_optional_and_nothing_where_it_is_required():
    good = prose("The share rose +2.33% and then +1.76%, which is a clear trend to follow.")
    bad = prose("It will go up.")
    assert of_reasoning(good, THREE_CLOSES, "optional") == pytest.approx(0.2 * 2 / 3 + 0.2)
    assert of_reasoning(bad, THREE_CLOSES, "optional") == 0
    assert of_reasoning(good, THREE_CLOSES) == of_reasoning(bad, THREE_CLOSES) == 0


def test_an_answers_own_numbers_are_no_evidence():
    own = "I expect a move of 1.2% and my confidence in that is 63%, since the data support it well."
    text = f"<think>{own}</think>\nPrediction: UP\nExpected move: 1.2%\nConfidence: 63%"
    assert of_reasoning(text, evidence="optional") == 0


# ------------------------------------------------------------------------------------------------------ the outcome


@pytest.mark.parametrize(
    "completion",
    [
        THOUGHT,
        f"<think>{THOUGHT}\nPrediction: UP</think>",
        answer(*LINES).replace("Prediction: UP", "Prediction: UP or DOWN"),
        answer(*LINES) + "\nPrediction: DOWN",
        answer(*LINES).replace("</think>", ""),
    ],
)
def test_without_one_readable_answer_everything_is_zero_and_the_problem_is_named(completion):
    result = score(completion, row())
    assert [result[name] for name in (*COMPONENTS, "total")] == [0] * 5
    assert result["problem"] and result["forecast"] is None


def test_direction_accuracy_is_one_or_zero_and_calibrated_accuracy_is_the_brier_score():
    def accuracy(text, kind="direction"):
        return score(text, row(), accuracy=kind)["accuracy"]

    assert accuracy(answer(*LINES)) == 1 and accuracy(answer(*LINES, direction="DOWN")) == 0
    assert accuracy(answer(*LINES), "calibrated") == pytest.approx(1 - 0.37**2)
    assert accuracy(answer(*LINES, direction="DOWN"), "calibrated") == pytest.approx(1 - 0.63**2)
    assert accuracy("Prediction: UP", "calibrated") == pytest.approx(0.75)
    assert accuracy("Prediction: UP\nConfidence: 8%", "calibrated") == pytest.approx(0.75)  # not a confidence


def expected_accuracy(p_up, stated, **options):
    """Mean calibrated accuracy of stating P(UP) = `stated` (a whole percentage) where UP has probability `p_up`."""
    direction, confidence = ("UP", stated) if stated >= 50 else ("DOWN", 100 - stated)
    text = f"Prediction: {direction}\nConfidence: {confidence}%"
    base_rate_up = options.pop("base_rate_up", 0.5)
    up, down = (
        score(text, row(label=label, base_rate_up=base_rate_up), accuracy="calibrated", **options)["accuracy"]
        for label in ("UP", "DOWN")
    )
    return p_up * up + (1 - p_up) * down


@pytest.mark.parametrize("skew_aware", [False, True])
@pytest.mark.parametrize("base_rate_up", [0.3, 0.5, 0.54])
def test_the_best_confidence_is_the_true_probability_or_its_odds_over_those_of_the_base_rate(base_rate_up, skew_aware):
    for percent in range(5, 100, 15):
        p_up = percent / 100
        odds = p_up / (1 - p_up) / (base_rate_up / (1 - base_rate_up) if skew_aware else 1)
        best = max(
            range(101),
            key=lambda s: expected_accuracy(p_up, s, base_rate_up=base_rate_up, skew_aware=skew_aware),
        )
        assert best == pytest.approx(100 * odds / (1 + odds), abs=0.51)


@pytest.mark.parametrize("base_rate_up", [0.3, 0.5, 0.54, 0.7])
@pytest.mark.parametrize("accuracy", ["direction", "calibrated"])
def test_with_skew_awareness_always_up_and_always_down_earn_the_same(base_rate_up, accuracy):
    def expected(direction):
        up, down = (
            score(
                f"Prediction: {direction}\nConfidence: 63%",
                row(label=label, base_rate_up=base_rate_up),
                accuracy=accuracy,
                skew_aware=True,
            )["accuracy"]
            for label in ("UP", "DOWN")
        )
        assert 0 <= up <= 1 and 0 <= down <= 1
        return base_rate_up * up + (1 - base_rate_up) * down

    assert expected("UP") == pytest.approx(expected("DOWN"))


def test_magnitude_pays_for_a_near_move_in_the_right_direction_only():
    def magnitude(facts=FACTS, **keys):
        return score(answer(*LINES, **keys), row(facts))["magnitude"]

    assert magnitude(move="1.2%") == pytest.approx(1)
    assert magnitude(move="2.7%") == pytest.approx(0.5)  # one daily volatility of 1.5% off
    assert magnitude(move="9%") == magnitude(direction="DOWN") == score("Prediction: UP", row())["magnitude"] == 0
    assert magnitude(THREE_CLOSES, move="3.2%") == pytest.approx(0.5)  # 2% where none is shown


# ------------------------------------------------------------------------------------------------------ scoring


def test_total_is_the_weighted_sum_and_the_mean_without_weights():
    result = score(answer(*LINES), row(), weights={"accuracy": 0.6, "data_usage": 0.4})
    assert result["total"] == pytest.approx(0.6 * result["accuracy"] + 0.4 * result["data_usage"])
    plain = score(answer(*LINES), row())
    assert plain["total"] == pytest.approx(sum(plain[name] for name in COMPONENTS) / 4)


def test_the_score_explains_each_line_and_reward():
    result = score(answer(LINES[0], "Close | $199.00 | UP", thought="It rose 8% in all."), row())
    assert result["evidence"] == [
        {"name": "1-day change", "value": "+2.30%", "side": "UP", "verdict": "grounded"},
        {"name": "Close", "value": "$199.00", "side": "UP", "verdict": "wrong value"},
    ]
    assert result["invented"] == ["8%"] and result["grounded"] == 0.5
    assert result["reasons"]["data_usage"] == (
        "1 of 2 lines grounded, citing 1 of 3 facts needed; 1 of 1 number in the thought invented"
    )
    assert set(result["reasons"]) == set(COMPONENTS)


def test_reward_functions_give_what_score_gives_for_conversations_and_strings():
    rows = [row(), row(label="DOWN"), row(THREE_CLOSES)]
    texts = [answer(*LINES), answer(*LINES, direction="DOWN"), "no answer"]
    columns = {key: [r[key] for r in rows] for key in rows[0]}
    names = ["coherence", "accuracy", "magnitude", "data_usage"]
    functions = Scorer("calibrated", True, "required").reward_functions(names)
    assert [function.__name__ for function in functions] == names
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    options = {"accuracy": "calibrated", "skew_aware": True, "evidence": "required"}
    for name, function in zip(names, functions, strict=True):
        expected = [score(t, r, **options)[name] for t, r in zip(texts, rows, strict=True)]
        assert function(conversations, **columns, prompts=["p"] * 3, trainer_state=None) == expected
        assert function(texts, **columns) == expected


def test_a_batch_is_parsed_once_for_all_rewards_and_anew_when_it_changes(monkeypatch):
    from stonk_trainer.tasks.stocks import rewards

    parsed = []
    monkeypatch.setattr(rewards, "parse", lambda text, parse=rewards.parse: parsed.append(text) or parse(text))
    texts, columns = [answer(*LINES), answer(LINES[0])], {key: [value] * 2 for key, value in row().items()}
    functions = Scorer(evidence="required").reward_functions(COMPONENTS)
    for function in functions:
        function(texts, **columns)
    assert parsed == texts
    texts[1] = answer()  # the same list, with another answer in it
    assert functions[2](texts, **columns) == [1, 0]
    columns["facts"] = [row(THREE_CLOSES)["facts"]] * 2  # the same answers to another row
    assert functions[2](texts, **columns) == [0, 0]


def test_unknown_names_are_refused_with_the_choices():
    for call in (
        lambda: Scorer().reward_functions(["acuracy"]),
        lambda: Scorer(accuracy="brier"),
        lambda: Scorer(evidence="some"),
        lambda: score("Prediction: UP", row(), weights={"format": 1}),
    ):
        with pytest.raises(ValueError, match="choose from"):
            call()


@pytest.mark.parametrize(
    "broken",
    [{"facts": "no json"}, {"facts": "[1, 2]"}, {"facts": None}, {"label": None}, {"next_return": None}],
)
def test_a_malformed_row_is_named(broken):
    key = next(iter(broken))
    with pytest.raises(ValueError, match=key):
        score(answer(*LINES), {**row(), **broken})
    with pytest.raises(ValueError, match=key):
        score(answer(*LINES), {name: value for name, value in row().items() if name != key})


PIECES = (
    *LINES,
    "- ",
    " | ",
    "UP",
    "Evidence:",
    "Prediction: UP",
    "Confidence: 63%",
    "<think>",
    "</think>",
    "\n",
    "8%",
    " ",
)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map("".join)),
    st.booleans(),
    st.sampled_from(["direction", "calibrated"]),
    st.booleans(),
    st.sampled_from(["required", "optional"]),
)
def test_any_text_gives_finite_rewards_between_zero_and_one(text, in_form, accuracy, skew_aware, evidence):
    completion = answer(text) if in_form else text
    result = score(completion, row(), accuracy=accuracy, skew_aware=skew_aware, evidence=evidence)
    assert all(0 <= result[name] <= 1 for name in (*COMPONENTS, "total"))
