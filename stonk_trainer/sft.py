"""Supervised fine-tuning: `stonk sft --config stocks/warmup`, or `python -m stonk_trainer.sft`.

Parse, find the model, build the data, train with TRL's SFTTrainer, save. For stocks this is the warm-up: it teaches
the form of an answer and to cite the data, and nothing about the outcome. For btc it is pretraining and SFT on tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stonk_trainer.errors import UserError, exits_cleanly, explained
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import NEW_MODEL, load_recipe
from stonk_trainer.terminal import log

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    args = load_recipe(argv, trainer="sft")  # strict; no trainer, model or dataset is touched before this line
    task = args.task

    from transformers import set_seed

    from stonk_trainer.models import loading
    from stonk_trainer.training import callbacks, checkpoints, distributed, guards, resumable
    from stonk_trainer.training.run_record import RunRecord

    args.start_log()
    distributed.patch_cpu_fsdp()
    set_seed(args.train.seed)
    train = task.sft_dataset("train")
    validation = task.sft_dataset("validation") if args.train.eval_strategy != "no" else None
    name, folder = args.model.model_name_or_path, Path(args.train.output_dir)
    if name == NEW_MODEL:
        if args.options.dry_run:
            return  # data and sizes are checked, and a new model fits its codec
        name = loading.write_new(lambda path: task.new_model(path, args.train.seed), folder / "new_model")
    source = name, folder, args.model.model_revision
    trust = {"trust_remote_code": args.train.trust_remote_code}
    located, template = loading.locate_model(*source, merge=False, **trust), args.train.chat_template_path
    tokenizer = loading.load_tokenizer(located, source[2], **trust, template=template)
    args.train.chat_template_path = None  # the tokenizer has it now
    task.check_tokenizer(tokenizer, name)
    train = whole_rows(train, tokenizer, args.train.max_length, "training")
    validation = validation and whole_rows(validation, tokenizer, args.train.max_length, "validation")
    guards.check_optimisation(args.train)
    resumed = checkpoints.resume_point(args.train.resume_from_checkpoint, folder)
    if args.options.dry_run:
        return

    make_folder(args.train.output_dir, "output_dir")
    args.train.model_init_kwargs = loading.loading_options(args.model) | (args.train.model_init_kwargs or {})
    small = len(tokenizer) <= resumable.SmallVocabularySFTTrainer.LARGEST
    model = loading.locate_model(*source, **trust)
    loading.check_weights(model, args.model, **trust)
    with explained("the trainer cannot be set up"), loading.reading(model):
        trainer = (resumable.SmallVocabularySFTTrainer if small else resumable.SupervisedTrainer)(
            model=model,
            **loading.training_form(args.model),
            processing_class=tokenizer,
            args=args.train,
            train_dataset=train,
            eval_dataset=validation,
        )
    callbacks.watch(trainer)
    guards.train(trainer, resumed, args, RunRecord(args, resumed))
    best = loading.save_best(trainer)
    task.add_to_model(best)
    log.info("saved %s", best)


def whole_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, what: str) -> Dataset:
    """The rows of at most `max_length` tokens; the others are dropped, with a count in the log.

    TRL would truncate them, and a truncated row teaches the model to stop early. So are rows that the chat template
    does not render as they were meant. Raises UserError when none is left, and for rows without a token to learn from.
    """
    from stonk_trainer.models import chat

    rows = chat.rendered_whole(rows, tokenizer, what)
    prompt_lengths, lengths = chat.token_lengths(rows, tokenizer)
    empty = int((lengths <= prompt_lengths).sum())
    if empty:
        raise UserError(f"{empty} of {len(lengths)} {what} rows have no token to learn from: remove them from the data")
    fits = lengths <= (max_length or lengths.max())
    if not fits.any():
        raise UserError(f"max_length: {max_length}: every {what} row is longer: set it to {lengths.max()}")
    longest = prompt_lengths[fits].max()
    log.info("%d %s rows of at most %d tokens (prompt %d)", fits.sum(), what, lengths[fits].max(), longest)
    if not fits.all():
        log.warning(
            "left out: %d of %d %s rows longer than max_length %d (the longest has %d)",
            (~fits).sum(), len(fits), what, max_length, lengths.max(),
        )  # fmt: skip
        rows = rows.select(fits.nonzero()[0])
    if "source" in rows.column_names:
        sources, tokens = np.array(rows["source"]), lengths[fits]
        shares = {name: tokens[sources == name].sum() / tokens.sum() for name in dict.fromkeys(sources.tolist())}
        log.info("shares of the tokens: %s", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    return rows


if __name__ == "__main__":
    main()
