"""A task that teaches one answer, for models so small that they learn nothing else in forty steps."""

from datasets import Dataset

from stonk_trainer.tasks.stocks import Stocks

PROMPT = [{"role": "system", "content": "You forecast."}, {"role": "user", "content": "Close: $4. Will it rise?"}]
ANSWER = "<think>\nIt was a weak week.\n</think>\nPrediction: DOWN"


class OneAnswer(Stocks):
    def sft_dataset(self, split):
        return Dataset.from_list([{"prompt": PROMPT, "completion": [{"role": "assistant", "content": ANSWER}]}] * 4)
