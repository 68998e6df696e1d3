"""`stonk merge`: one folder, or one GGUF file, of an adapter or a model, for use elsewhere."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from stonk_trainer.errors import UserError, exits_cleanly, explained
from stonk_trainer.models.loading import locate_model, merge_adapter
from stonk_trainer.publish.gguf import write_gguf
from stonk_trainer.terminal import quiet_imports, start_log


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    """`stonk merge MODEL OUTPUT`: adapter → full checkpoint; adapter or full checkpoint → GGUF."""
    parser = argparse.ArgumentParser(
        prog="stonk merge",
        description="Merge a LoRA adapter into its base model: a full checkpoint with tokenizer, or one GGUF file.",
        epilog="example: stonk merge runs/stage1/best_adapter stage1.gguf --to gguf",
    )
    parser.add_argument("model", help="folder of an adapter; with --to gguf also of a full model")
    parser.add_argument("output", help="folder, or with --to gguf the file, to write; must not exist yet")
    parser.add_argument(
        "--to", choices=["hf", "gguf"], default="hf", help="hf: a folder (default). gguf: bf16, for llama.cpp"
    )
    args = parser.parse_args(argv)
    quiet_imports()
    start_log()
    model, output = Path(args.model).expanduser(), Path(args.output).expanduser()
    if args.to == "hf" and not (model / "adapter_config.json").is_file():
        raise UserError(f"{args.model} is not an adapter (no adapter_config.json in it)")
    if output.exists():
        raise UserError(f"{args.output} exists already: give a new {'folder' if args.to == 'hf' else 'file'}")
    if args.to == "hf":
        with explained(f"adapter {model} does not fit its base"):
            merged = merge_adapter(model, output)
        print(f"merged model: {merged}")
        return
    if output.suffix != ".gguf":
        raise UserError(f"{args.output}: give the name of a file that ends in .gguf")
    with tempfile.TemporaryDirectory(prefix="stonk-merge-") as temporary:
        write_gguf(locate_model(args.model, temporary), output)
    print(f"GGUF in bf16: {output} (llama.cpp's llama-quantize makes it smaller)")


if __name__ == "__main__":
    main()
