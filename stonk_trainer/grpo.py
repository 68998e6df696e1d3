"""Reinforcement learning with GRPO: `stonk grpo --config stocks/stage1`, or `python -m stonk_trainer.grpo`.

Parse, find the model, build the data, train with TRL's GRPOTrainer, which here computes each token once
(`training/grouped.py`), save. On several GPUs: `accelerate launch -m stonk_trainer.grpo --config …`. With `beta` above
0 the KL refers to the model the run starts from: LoRA starts at zero on it, so without LoRA it is that model exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stonk_trainer.errors import UserError, exits_cleanly, explained
from stonk_trainer.files import make_folder
from stonk_trainer.recipe import load_recipe
from stonk_trainer.task import ForecastTask
from stonk_trainer.terminal import log

if TYPE_CHECKING:
    from trl import GRPOConfig


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    args = load_recipe(argv, trainer="grpo")  # strict; no trainer, model or dataset is touched before this line
    task = args.task
    rewards = task.reward_functions()

    from transformers import set_seed

    from stonk_trainer.models import chat, drafting, loading
    from stonk_trainer.training import callbacks, checkpoints, distributed, guards
    from stonk_trainer.training.grouped import SharedPrefixGRPOTrainer
    from stonk_trainer.training.milestone import Milestone
    from stonk_trainer.training.run_record import RunRecord

    args.start_log()
    distributed.patch_cpu_fsdp()
    set_seed(args.train.seed)
    source = args.model.model_name_or_path, args.train.output_dir, args.model.model_revision
    train = task.rl_dataset("train")
    task.try_rewards(train[0])  # a reward of the user's that fails ends the run here
    validation = task.rl_dataset("validation") if args.train.eval_strategy != "no" else None
    trust = {"trust_remote_code": args.train.trust_remote_code}
    tokenizer = loading.load_tokenizer(loading.locate_model(*source, merge=False, **trust), source[2], **trust)
    task.check_tokenizer(tokenizer, source[0])
    train = chat.rendered_whole(train, tokenizer, "training")
    validation = validation and chat.rendered_whole(validation, tokenizer, "validation")
    check_batches(len(train), args.train)
    guards.check_optimisation(args.train)
    resumed = checkpoints.resume_point(args.train.resume_from_checkpoint, args.train.output_dir)
    if args.options.dry_run:
        return

    make_folder(args.train.output_dir, "output_dir")
    args.train.model_init_kwargs = loading.loading_options(args.model) | (args.train.model_init_kwargs or {})
    model = loading.locate_model(*source, **trust)
    run_log = Path(args.train.output_dir) / task.run_log_name()
    loading.check_weights(model, args.model, **trust)
    with explained("the trainer cannot be set up"), loading.reading(model):
        trainer = SharedPrefixGRPOTrainer(
            model=model,
            **loading.training_form(args.model),
            processing_class=loading.load_tokenizer(model, source[2], **trust),
            args=args.train,
            reward_funcs=rewards,
            train_dataset=train,
            eval_dataset=validation,
            task=task,
            shared_prefix=args.options.shared_prefix,
            skip_zero_variance=args.options.skip_zero_variance,
            resample_groups=args.options.resample_groups,
            packed_tokens=args.options.packed_tokens,
            draft_tokens=drafting.tokens_of(args.options.draft_tokens),
            callbacks=[callbacks.RunLog(run_log), guards.Warnings()],
        )
    if isinstance(task, ForecastTask):
        trainer.add_callback(callbacks.MarketStatistics(run_log, args.options.stats_window))
    if args.options.milestone_evaluations:
        trainer.add_callback(Milestone(task, args.options, args.train.output_dir))
    if args.options.kl_target is not None:
        trainer.add_callback(callbacks.AdaptiveKL(trainer, args.options.kl_target))
    callbacks.watch(trainer)
    guards.train(trainer, resumed, args, RunRecord(args, resumed))
    best = loading.save_best(trainer)
    task.add_to_model(best)
    log.info("saved %s", best)


def check_batches(rows: int, config: GRPOConfig) -> None:
    """Say what one step is made of, and refuse a run whose data does not fill one generation batch."""
    prompts = config.generation_batch_size // config.num_generations
    log.info(
        "each generation: %d prompts x %d completions of at most %d tokens; beta %g",
        prompts, config.num_generations, config.max_completion_length, config.beta,
    )  # fmt: skip
    if rows < prompts:
        raise UserError(
            f"{rows} training rows do not fill one batch of {prompts} prompts: give more rows, "
            "or lower per_device_train_batch_size or gradient_accumulation_steps"
        )


if __name__ == "__main__":
    main()
