"""Supervised fine-tuning: `stonk sft --config stocks/warmup`, or `python -m stonk_trainer.sft`.

Parse, find the model, build the data, train with TRL's SFTTrainer, save. For stocks this is the warm-up: it teaches
the form of an answer and to cite the data, and nothing about the outcome.
"""

from __future__ import annotations

from stonk_trainer.errors import UserError, exits_cleanly
from stonk_trainer.recipe import load_recipe
from stonk_trainer.terminal import log, start_log


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    task, args = load_recipe(argv, trainer="sft")  # strict; no trainer, model or dataset is touched before this line

    from transformers import set_seed
    from trl import SFTTrainer

    from stonk_trainer import callbacks, models

    start_log()
    set_seed(args.train.seed)
    source = args.model.model_name_or_path, args.train.output_dir, args.model.model_revision
    train = task.sft_dataset(args.task, "train")
    validation = task.sft_dataset(args.task, "validation") if args.train.eval_strategy != "no" else None
    tokenizer = models.load_tokenizer(models.locate_model(*source, merge=False), args.model.model_revision)
    check_lengths(train, tokenizer, args.train)
    if args.run.dry_run:
        return

    callbacks.open_run(args)
    args.train.model_init_kwargs = models.loading_options(args.model) | (args.train.model_init_kwargs or {})
    trainer = SFTTrainer(
        model=models.locate_model(*source),
        **models.training_form(args.model),
        processing_class=tokenizer,
        args=args.train,
        train_dataset=train,
        eval_dataset=validation,
    )
    callbacks.watch(trainer)
    trainer.train(resume_from_checkpoint=args.train.resume_from_checkpoint)
    log.info("saved %s", models.save_best(trainer))


def check_lengths(rows, tokenizer, config) -> None:
    """Say how many rows `max_length` cuts, which TRL does silently; refuse when no row has a token left to learn.

    TRL keeps the start of a cut sequence, so a row whose prompt alone fills `max_length` teaches nothing.
    """
    prompts, completions = list(rows["prompt"]), list(rows["completion"])
    wholes = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    opened = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)
    prompt_lengths = [len(ids) for ids in opened["input_ids"]]
    lengths = [len(ids) for ids in tokenizer.apply_chat_template(wholes, return_dict=True)["input_ids"]]
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


if __name__ == "__main__":
    main()
