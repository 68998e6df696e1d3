"""Tables of `stonk eval`."""

from types import SimpleNamespace

from stonk_trainer.evaluation.evaluate import judge_answers
from stonk_trainer.evaluation.tables import print_summary


def answers(right):
    return [{"rewards": {"correctness": float(i < right), "form": None}} for i in range(40)]


def test_answers_that_are_not_forecasts_show_rewards_and_paired_differences(capsys):
    options = SimpleNamespace(split="test", seed=0, reward_weights=[1.0, 0.5])
    args = SimpleNamespace(options=options, task=SimpleNamespace(reward_names=["correctness", "form"]))
    summary = judge_answers(args, {"runs/sft": answers(10), "runs/rl/best_model": answers(30)})
    print_summary(summary)
    out = " ".join(capsys.readouterr().out.split())
    assert "Answers to 40 test rows" in out
    assert "sft 0.250 0.000 0.250" in out and "rl 0.750 0.000 0.750" in out
    assert "rl minus sft: correctness +0.500 (0.3" in out
