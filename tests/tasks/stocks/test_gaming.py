"""Patterns of gaming are found in gamed logs and not in honest ones."""

import random
import time

import pytest

from stonk_trainer.tasks.stocks.gaming import find_patterns, skeleton

NOUNS = (
    "share price close average volume trend market rally decline margin revenue earnings headline momentum level "
    "sector guidance dividend buyback outlook inventory demand supplier forecast rate spread option hedge fund index"
).split()
VERBS = "shows suggests supports limits follows precedes confirms masks drives reflects offsets weighs lifts".split()
LINKS = "while because although since after before despite given whereas until".split()


def sentence(rng):
    words = [rng.choice(NOUNS), rng.choice(VERBS), "the", rng.choice(NOUNS), rng.choice(LINKS), rng.choice(NOUNS)]
    words += [rng.choice(VERBS), f"{rng.uniform(0.1, 9):.2f}%", "over", f"{rng.randint(2, 20)} days"]
    return "the " + " ".join(words) + "."


def honest_log(seed, count=400, group=4, prompts=2, up_rate=0.53, gains=0.0):
    """Varied texts, and rewards that rise together by `gains` over the run; every 20th answer is unreadable."""
    rng = random.Random(seed)
    lines = []
    while len(lines) < count:
        step = len(lines) // (group * prompts) + 1
        done = len(lines) / count
        ticker, date = rng.choice(["AAPL", "JPM", "XOM", "KO"]), f"20{rng.randint(10, 19)}-03-{rng.randint(10, 28)}"
        label = "UP" if rng.random() < up_rate else "DOWN"
        leaning = rng.betavariate(2, 2)  # the answers to one prompt resemble each other
        quality = 0.5 + gains * done
        for _ in range(min(group, count - len(lines))):
            direction = "UP" if rng.random() < leaning else "DOWN"
            if rng.random() < gains * done:
                direction = label
            text = " ".join(sentence(rng) for _ in range(rng.randint(2, 7)))
            rewards = {
                "accuracy": float(direction == label),
                "data_usage": min(1.0, max(0.0, rng.gauss(quality, 0.2))),
                "coherence": min(1.0, max(0.0, rng.gauss(quality, 0.3))),
            }
            answer = (
                f"Prediction: {direction}\nExpected move: 1.{rng.randint(0, 9)}%\nConfidence: {rng.randint(50, 70)}%"
            )
            if rng.random() < 0.05:
                direction, answer, rewards = None, "", dict.fromkeys(rewards, 0.0)
            lines.append(
                {
                    "step": step,
                    "ticker": ticker,
                    "date": date,
                    "label": label,
                    "next_return": 0.01 if label == "UP" else -0.01,
                    "direction": direction,
                    "confidence": 0.6,
                    "move": 0.01,
                    "grounded": 1.0,
                    **rewards,
                    "total": 0.6 * rewards["accuracy"] + 0.2 * rewards["data_usage"] + 0.2 * rewards["coherence"],
                    "completion": f"<think>\n{text}\n</think>\n{answer}",
                }
            )
    return lines


def changed(lines, change):
    """`change(line, done, rng)` applied to each line in turn; `done` runs from 0 to 1."""
    rng = random.Random(1)
    return [change(dict(line), i / len(lines), rng) for i, line in enumerate(lines)]


def with_rising_form(line, done, rng):
    for name in ("data_usage", "coherence"):
        line[name] = min(1.0, line[name] + 0.5 * done) if line["direction"] else 0.0
    return line


def with_one_template(line, done, rng):
    if line["direction"] and rng.random() < 1.5 * done:
        line["completion"] = (
            f"<think>\n{line['ticker']} closed at ${rng.uniform(10, 200):.2f}, {rng.randint(1, 9)}% above its average, "
            f"so it goes {line['direction'].lower()}.\n</think>\nPrediction: {line['direction']}"
        )
    return line


def with_one_direction(line, done, rng):
    if line["direction"] and rng.random() < 2 * done:
        line["direction"] = "UP"
    return line


def with_cut_off_answers(line, done, rng):
    if rng.random() < done:
        line["direction"] = None
        line["completion"] = ("<think>\n" + " ".join(sentence(rng) for _ in range(20)))[
            : rng.randint(700, 900)
        ] + " the"
    return line


def with_equal_rewards(line, done, rng):
    if done > 0.5:
        line["total"] = 0.8
    return line


# pattern: (how a log is gamed, completions at which it must be found)
GAMES = {
    "rising reward, flat accuracy": (with_rising_form, 3000),
    "one template repeated": (with_one_template, 100),
    "one direction only": (with_one_direction, 240),
    "length at the limit": (with_cut_off_answers, 60),
    "no variance within groups": (with_equal_rewards, 120),
}


def names(lines, **options):
    return [pattern.name for pattern in find_patterns(lines, **options)]


def alarms(lines):
    return [pattern for pattern in find_patterns(lines) if pattern.severity != "unjudged"]


@pytest.mark.slow
def test_fewer_than_one_honest_log_in_twenty_raises_any_alarm():
    raised = []
    for seed in range(200):
        rng = random.Random(seed)
        group, prompts = rng.choice([(4, 2), (4, 1), (8, 1), (8, 4)])
        up_rate, gains = rng.choice([0.5, 0.53, 0.56]), rng.choice([0.0, 0.0, 0.2, 0.4])
        raised += alarms(honest_log(seed, rng.randint(40, 400), group, prompts, up_rate, gains))[:1]
    assert len(raised) < 10, raised


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_a_gamed_log_is_found(name):
    game, count = GAMES[name]
    found = [name in names(changed(honest_log(seed, count), game)) for seed in range(5)]
    assert sum(found) >= 4, found


@pytest.mark.parametrize("name", GAMES)
def test_a_long_honest_log_is_silent(name):
    assert alarms(honest_log(3, GAMES[name][1], gains=0.2)) == []


def test_a_pattern_names_the_numbers_and_the_steps():
    lines = changed(honest_log(0, 400), with_one_direction)
    readable = sum(line["direction"] is not None for line in lines[-133:])
    before = [line["direction"] == "UP" for line in lines[:133] if line["direction"]]
    (pattern,) = alarms(lines)
    assert pattern.severity == "warning"
    assert f"100% of the {readable} forecasts of steps 34-50 say UP" in pattern.text
    assert f"({sum(before) / len(before):.0%} in steps 1-17)" in pattern.text
    assert "50% of their 34 rows went UP" in pattern.text


def test_a_log_too_short_to_judge_says_so_and_raises_no_alarm():
    for count in (0, 1, 10, 29):
        lines = changed(honest_log(0, count), with_one_template) if count else []
        (pattern,) = find_patterns(lines)
        assert pattern.severity == "unjudged" and f"{count} completions are too few to judge" in pattern.text


def test_a_log_of_few_steps_is_judged_except_for_its_trends():
    lines = [line | {"step": 1 + i // 80} for i, line in enumerate(changed(honest_log(0, 240), with_rising_form))]
    assert [pattern.name for pattern in find_patterns(lines)] == ["too few steps"]
    lines = changed(lines, with_one_direction)
    assert {"one direction only", "too few steps"} <= set(names(lines))


def test_the_order_of_the_lines_does_not_matter():
    lines = changed(honest_log(1, 240), with_one_direction)
    mixed = sorted(random.Random(0).sample(lines, len(lines)), key=lambda line: -line["step"])
    assert names(mixed) == names(lines) == ["one direction only"]


def test_forecasts_as_one_sided_as_the_market_are_no_pattern():
    lines = honest_log(0, 400, up_rate=1.0)
    assert "one direction only" not in names(changed(lines, with_one_direction))


def test_one_sided_forecasts_in_a_one_sided_market_are_no_pattern_whatever_the_market_did_before():
    lines = changed(honest_log(0, 1200), with_one_direction)
    lines = [line | {"label": "UP"} if i >= 800 else line for i, line in enumerate(lines)]
    assert "one direction only" not in names(lines)


def test_answers_to_few_rows_do_not_show_one_direction():
    """40 answers, all UP, but to five prompts of the last third: a coin can do that."""
    lines = honest_log(0, 120, group=8, prompts=1)
    assert "one direction only" not in names(changed(lines, with_one_direction))


def test_a_reward_that_rises_together_with_accuracy_is_no_pattern():
    lines = changed(honest_log(0, 3000, gains=0.4), with_rising_form)
    assert "rising reward, flat accuracy" not in names(lines)


def test_learning_to_be_readable_is_no_pattern():
    """At first most answers earn nothing for want of a form; what readable ones earn does not change.

    All forecasts are wrong, so that accuracy does not rise with readability.
    """

    def learns_the_form(line, done, rng):
        if rng.random() > 0.3 + 0.7 * done:
            line |= {"direction": None, "data_usage": 0.0, "coherence": 0.0, "total": 0.0}
        return line | {"accuracy": 0.0}

    assert "rising reward, flat accuracy" not in names(changed(honest_log(0, 3000), learns_the_form))


def test_a_template_used_from_the_first_step_is_found():
    lines = [with_one_template(dict(line), 1.0, random.Random(i)) for i, line in enumerate(honest_log(0, 120))]
    (pattern,) = alarms(lines)
    assert pattern.name == "one template repeated" and '"<think> A closed at 0 0% above its average' in pattern.text


def test_a_skeleton_keeps_the_words_and_masks_what_differs_between_rows():
    one = "On 2019-03-04 The Home Depot (HD) closed at $1,182.31, up 2.3%.\n\nPrediction: UP"
    other = "On 2021-11-30 Apple (AAPL) closed at $42.00, down -0.5%.\nPrediction: DOWN"
    assert skeleton(one) == skeleton(other)
    assert skeleton("the close fell") != skeleton("the close rose")


def test_short_unreadable_answers_are_not_taken_for_cut_off():
    def gives_up(line, done, rng):
        return line | {"direction": None, "completion": "I cannot say"} if rng.random() < done else line

    assert "length at the limit" not in names(changed(honest_log(0, 400), gives_up))


def test_long_unreadable_answers_that_come_to_an_end_are_not_taken_for_cut_off():
    def finishes(line, done, rng):
        line = with_cut_off_answers(line, done, rng)
        return line if line["direction"] else line | {"completion": line["completion"] + " end."}

    assert "length at the limit" not in names(changed(honest_log(0, 400), finishes))


def test_the_limit_in_tokens_tells_a_long_answer_from_one_cut_off():
    lines = changed(honest_log(0, 120), with_cut_off_answers)  # 700 to 900 characters
    assert "length at the limit" in names(lines, max_completion_length=256)
    assert "length at the limit" not in names(lines, max_completion_length=2048)


def test_groups_that_earn_nothing_are_counted():
    lines = [line | {"total": 0.0} for line in honest_log(0, 120)]
    (pattern,) = alarms(lines)
    assert "in 10 every answer earns 0" in pattern.text


@pytest.mark.slow
def test_ten_thousand_completions_take_seconds():
    lines = honest_log(0, 10_000)
    for line in lines:
        line["completion"] = 4 * line["completion"]
    started = time.process_time()
    find_patterns(changed(lines, with_one_template))
    assert time.process_time() - started < 5
