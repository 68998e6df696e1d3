"""Supervised fine-tuning: `stonk sft --config stocks/warmup`, or `python -m stonk_trainer.sft`.

Parse, find the model, build the data, train with TRL's SFTTrainer, save. For stocks this is the warm-up: it teaches
the form of an answer and to cite the data, and nothing about the outcome. For btc it is pretraining and SFT on tokens.
"""

from __future__ import annotations

from pathlib import Path

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.recipe import NEW_MODEL, load_recipe
from stonk_trainer.terminal import log, start_log


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    task, args = load_recipe(argv, trainer="sft")  # strict; no trainer, model or dataset is touched before this line

    from transformers import set_seed
    from trl import SFTTrainer

    from stonk_trainer import callbacks, models

    start_log()
    set_seed(args.train.seed)
    train = task.sft_dataset(args.task, "train")
    validation = task.sft_dataset(args.task, "validation") if args.train.eval_strategy != "no" else None
    name, folder = args.model.model_name_or_path, Path(args.train.output_dir)
    if name == NEW_MODEL:
        if args.run.dry_run:
            return  # data and sizes are checked, and a new model fits its codec
        name = models.write_new(lambda path: task.new_model(args.task, path, args.train.seed), folder / "new_model")
    source = name, folder, args.model.model_revision
    tokenizer = models.load_tokenizer(models.locate_model(*source, merge=False), args.model.model_revision)
    task.check_tokenizer(args.task, tokenizer, name)
    check_lengths(train, tokenizer, args.train)
    if args.run.dry_run:
        return

    callbacks.open_run(args)
    args.train.model_init_kwargs = models.loading_options(args.model) | (args.train.model_init_kwargs or {})
    small = len(tokenizer) <= callbacks.SmallVocabularySFTTrainer.LARGEST
    trainer = (callbacks.SmallVocabularySFTTrainer if small else SFTTrainer)(
        model=models.locate_model(*source),
        **models.training_form(args.model),
        processing_class=tokenizer,
        args=args.train,
        train_dataset=train,
        eval_dataset=validation,
    )
    callbacks.watch(trainer)
    trainer.train(resume_from_checkpoint=args.train.resume_from_checkpoint)
    best = models.save_best(trainer)
    task.add_to_model(args.task, best)
    log.info("saved %s", best)


def check_lengths(rows, tokenizer, config) -> None:
    """Say how many rows `max_length` cuts, which TRL does silently; refuse when no row has a token left to learn.

    TRL keeps the start of a cut sequence, so a row whose prompt alone fills `max_length` teaches nothing.
    """
    prompt_lengths, lengths = _token_lengths(rows, tokenizer)
    limit = config.max_length or max(lengths)
    cut = sum(length > limit for length in lengths)
    empty = sum(length >= limit for length in prompt_lengths)
    log.info("%d rows of at most %d tokens (prompt %d)", len(lengths), max(lengths), max(prompt_lengths))
    if empty == len(lengths):
        raise UserError(
            f"max_length: {limit} leaves nothing to learn, every prompt is that long: set it to {max(lengths)}"
        )
    if cut:
        log.warning(
            f"max_length {limit} cuts {cut} of {len(lengths)} rows ({empty} lose their whole answer): "
            f"set it to {max(lengths)}"
        )


def _token_lengths(rows, tokenizer) -> tuple[list[int], list[int]]:
    """(tokens of each row's prompt, tokens of each row); rows of tokens have no prompt."""
    if "input_ids" in rows.column_names:
        return [0] * len(rows), [len(ids) for ids in rows["input_ids"]]
    prompts, completions = list(rows["prompt"]), list(rows["completion"])
    wholes = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    opened = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)
    whole_ids = tokenizer.apply_chat_template(wholes, return_dict=True)["input_ids"]
    return [len(ids) for ids in opened["input_ids"]], [len(ids) for ids in whole_ids]


if __name__ == "__main__":
    main()
