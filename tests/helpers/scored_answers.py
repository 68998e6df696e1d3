"""Scored completions, as `ScoredGRPOTrainer` hands them to its callbacks."""

from transformers import TrainerControl, TrainerState


def answer(label="UP", direction="UP", step=1, total=0.9, coherence=0.9, **columns):
    """One scored completion, as `ScoredGRPOTrainer` hands it over."""
    forecast = {"label": label, "direction": direction, "confidence": 0.6, "move": None, "next_return": 0.01}
    rewards = {"accuracy": float(label == direction), "coherence": coherence}
    return {
        "step": step,
        "ticker": "A",
        **forecast,
        **columns,
        "rewards": rewards,
        "total": total,
        "completion": "text",
    }


def hand_over(callback, records, step=0, training=True):
    callback.on_completions(None, TrainerState(global_step=step), TrainerControl(), records, training)
