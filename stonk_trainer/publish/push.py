"""`stonk push`: a trained model to the Hugging Face Hub, with a card that says how it was made and how good it is."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from stonk_trainer.errors import UserError, exits_cleanly, first_line
from stonk_trainer.models.loading import check_folder

# What of a model's folder is pushed: no pickles, no states of optimisers, no logs.
PUSHED: tuple[str, ...] = ("config.json", "generation_config.json", "model*.safetensors", "*.gguf")
PUSHED += ("model.safetensors.index.json",)
PUSHED += ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
PUSHED += ("chat_template.jinja", "codec/config.json", "codec/model.safetensors", "LICENSE*", "NOTICE*")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """`stonk push FOLDER REPO_ID`: a trained model to the Hugging Face Hub, with a model card."""
    parser = argparse.ArgumentParser(
        prog="stonk push",
        description="Put a trained model on the Hugging Face Hub, with a model card made of what the run left.",
        epilog="example: stonk push runs/stage2 me/my-model --private --eval runs/eval --dry_run",
    )
    parser.add_argument("folder", help="folder of a run (its best_model is pushed), or of a model")
    parser.add_argument("repo_id", help="owner/name on the Hub")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print card and files, send nothing")
    parser.add_argument("--message", default="Add model", help="commit message (default: Add model)")
    parser.add_argument("--eval", metavar="FOLDER", help="folder of an evaluation of this model (default: looked for)")
    args = parser.parse_args(argv)

    from stonk_trainer.publish import card

    _check_repo_id(args.repo_id)
    model = model_to_push(Path(args.folder).expanduser())
    files = files_to_push(model)
    text = card.make_card(model, args.repo_id, Path(args.eval).expanduser() if args.eval else None)
    if args.dry_run:
        print(f"{text}\n")
        for name, size in [("README.md", len(str(text).encode())), *((n, p.stat().st_size) for n, p in files.items())]:
            print(f"{size:>15,} bytes  {name}")
        print(f"dry run: nothing was sent to {args.repo_id}")
        return
    print(f"pushed: {push(files, str(text), args.repo_id, args.private, args.message)}")


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id} is not a name on the Hub (owner/name): {error}") from error
    if "/" not in repo_id:
        raise UserError(f"{repo_id} is not a name on the Hub: give owner/name")


def model_to_push(folder: Path) -> Path:
    """The folder of the full model that `folder` names: itself, or its `best_model`. Raises UserError for others."""
    if (folder / "best_model" / "config.json").is_file():
        return folder / "best_model"
    check_folder(str(folder))
    if not folder.is_dir():
        raise UserError(f"{folder} not found: give the folder of a run, or of a model")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is an adapter: push the merged best_model, or merge it first (stonk merge)")
    return folder


def files_to_push(model: Path) -> dict[str, Path]:
    """What of a model's folder goes to the Hub, by its name there: weights, configs, tokenizer, codec, licence.

    Anything else (pickles, states of optimisers, checkpoints, logs) stays. A link may not lead out of the folder.
    Raises UserError when there are no weights as safetensors.
    """
    found = sorted({path for pattern in PUSHED for path in model.glob(pattern) if path.is_file()})
    chosen = {p.relative_to(model).as_posix(): p for p in found if p.resolve().is_relative_to(model.resolve())}
    if not any(name.endswith((".safetensors", ".gguf")) and "/" not in name for name in chosen):
        raise UserError(f"{model} holds no weights as safetensors: nothing else is pushed")
    return chosen


def push(files: dict[str, Path], card: str, repo_id: str, private: bool, message: str) -> str:
    """Upload the files and the card. Returns the repository's address.

    Raises UserError, in one line, for whatever keeps it from being done, and for a public repository where `private` is
    asked for: the Hub would leave it public.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if get_token() is None:
        raise UserError("no Hub token on this machine: log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        with tempfile.TemporaryDirectory(prefix="stonk-push-") as temporary:
            # a folder of links: exactly what the dry run lists, and nothing is written beside the model
            for name, path in files.items():
                link = Path(temporary) / name
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(path.resolve())
            (Path(temporary) / "README.md").write_text(card, encoding="utf-8")
            url = api.create_repo(repo_id, private=private or None, exist_ok=True)
            if private and not api.model_info(repo_id).private:
                raise UserError(
                    f"{repo_id} exists and is public: make it private in its settings, or leave --private out"
                )
            api.upload_folder(repo_id=repo_id, folder_path=temporary, commit_message=message)
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = {401: ": log in with `hf auth login`", 403: ": the token needs write access to it"}.get(status, "")
        reason = error.server_message or first_line(error)
        raise UserError(f"the Hub refused {repo_id} (status {status}): {reason}{hint}") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{repo_id} was not pushed: {first_line(error.__cause__ or error)}: run it again") from error
    return str(url)


if __name__ == "__main__":
    main()
