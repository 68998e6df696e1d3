"""A reward of one's own, for stocks: humility. Copy it beside your recipe and name it there, or as a flag:

stonk grpo --config stocks/demo/stage1 --reward accuracy data_usage my_rewards:humility --reward_weights 0.6 0.2 0.2
"""

from stonk_trainer.tasks.stocks.answer import parse


def humility(completions, **columns) -> list[float]:
    """1 for a stated confidence of 50% to 60%, falling to 0 at 100%: daily prices allow no more. 0 without one.

    completions: conversations that end with the answer, as TRL hands them over. columns: what a row has besides its
    prompt (`label`, `next_return`, `facts`, …), a list each, as long as completions, and what TRL adds.
    """
    stated = [parse(completion[-1]["content"]).confidence for completion in completions]
    return [0.0 if confidence is None else min(1.0, (1.0 - confidence) / 0.4) for confidence in stated]
