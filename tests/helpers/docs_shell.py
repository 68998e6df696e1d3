"""The commands of the documentation, run as a reader would run them: in one copy of the repository, page after page.

A fenced ```bash or ```python block is run. A bash block that cannot be run here says why, in a comment on the line
before its fence (`MARKS`); then every line of it is checked as far as that goes without running it, and a line that
cannot be checked is a fault. Training is made small by flags that are appended to a command (`smaller`).

In the sandbox `.venv/bin/stonk` is a client of a server that has imported torch, TRL and this package once and forks
for each command: sixty commands would otherwise spend seven minutes importing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 240  # for one block, on a busy machine
OPEN = "stays open"  # run until it answers on its port
MARKS = ("needs a GPU", "needs the Hub", "needs the network", "needs a cluster", "takes long", OPEN)
SHELLS = ("sh", "shell", "console", "shell-session", "zsh", "terminal")


# ------------------------------------------------------------------------------------------------------ pages


class Fault(Exception):
    """What is wrong with a block, in words."""


@dataclass
class Block:
    """A fenced block that is to be run or checked."""

    page: str
    line: int  # of its fence, from 1
    language: str  # bash or python
    mark: str | None
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path) -> list[Path]:
    """README first, because the others go on from what its commands leave."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def blocks(text: str, page: str) -> list[Block]:
    """The blocks of a page that are run, in order. Raises Fault for one that would be passed over in silence."""
    found, lines, at = [], text.splitlines(), 0
    while at < len(lines):
        fence = re.match(r"( *)(```+|~~~+) *(\w[\w+-]*)?(.*)$", lines[at])
        if not fence:
            at += 1
            continue
        indent, ticks, language, rest = fence.groups()
        start, body = at, []
        at += 1
        while at < len(lines) and lines[at].strip() != ticks:
            body.append(lines[at].removeprefix(indent))
            at += 1
        if at == len(lines):
            raise Fault(f"{page}:{start + 1}: the block never ends")
        at += 1
        comment = re.fullmatch(r"\s*<!--\s*(.*?)\s*-->\s*", lines[start - 1]) if start else None
        mark = comment[1] if comment else None
        if language in SHELLS or rest.strip():
            raise Fault(f"{page}:{start + 1}: call the block ```bash, so that it is run")
        if language in ("bash", "python"):
            if mark is not None and mark not in MARKS:
                raise Fault(f"{page}:{start}: <!-- {mark} --> is not one of {', '.join(MARKS)}")
            if mark is not None and language == "python":
                raise Fault(f"{page}:{start + 1}: a Python block is always run: make it one that can be")
            found.append(Block(page, start + 1, language, mark, "\n".join(body) + "\n"))
        elif not language and any(re.match(r"(\$ |\S*stonk \w|\./train_|make \w|pip install)", line) for line in body):
            raise Fault(f"{page}:{start + 1}: a command in a block that is not run: call it ```bash")
    return found


def commands(code: str) -> list[list[str]]:
    """The simple commands of a bash block as lists of words; redirections are left out."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        tokens = iter(lexer)
        for token in tokens:
            if set(token) <= set("<>"):
                next(tokens, None)
            elif set(token) <= set("|;&"):
                found.append(words)
                words = []
            else:
                words.append(token)
        found.append(words)
    return [words for words in found if words]


# ---------------------------------------------------------------------------------------------------- sandbox


CLIENT = """#!{python} -IS
# Hands a command to the server of tests/helpers/docs_shell.py and waits for its end.
import array, json, os, signal, socket, sys
program, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
ours = program != "python" or argv[:1] == ["-m"] and argv[1].startswith("stonk_trainer.")
if not ours:
    os.environ["PYTHONPATH"] = {root!r}
    os.execv({python!r}, [{python!r}, *argv])
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
request = json.dumps([program, argv, os.getcwd(), dict(os.environ)]).encode()
connection.sendall(len(request).to_bytes(8, "big"))
connection.sendmsg([request[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
connection.sendall(request[1:])
answers = connection.makefile()
worker = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(worker, number))
status = int(answers.readline() or 1)
os._exit(status if status >= 0 else 128 - status)
"""


class Sandbox:
    """A copy of the repository's tracked files with a `.venv` that answers at once, and what a reader brings along."""

    def __init__(self, models: dict[str, Path]):
        """models: a tiny model for each task that starts from the embedded one."""
        self.top = Path(tempfile.mkdtemp(prefix="docs-"))  # short: a socket's name has at most 108 letters
        self.root = self.top / "stonk_trainer"
        copy_tracked(self.root)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        self.environment |= {
            "PATH": f"{self.root}/.venv/bin{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.top),
            "XDG_CACHE_HOME": str(self.top / "cache"),
            "HF_HOME": str(self.top / "cache/huggingface"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DOCS_MODELS": json.dumps({task: str(path) for task, path in models.items()}),
            "COLUMNS": "200",
        }
        self._make_venv()
        write_files_of_a_reader(self.root)
        self.log = (self.top / "server.log").open("w+")
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(self.address)], cwd=self.root, stdin=subprocess.DEVNULL,
            env=self.environment | {"PYTHONPATH": str(self.root)}, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while not self.address.exists():
            if self.server.poll() is not None:
                raise RuntimeError(f"the server ended: {(self.top / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
        self.log.close()
        shutil.rmtree(self.top, ignore_errors=True)

    @property
    def address(self) -> Path:
        return self.top / "server"

    def _make_venv(self) -> None:
        bin_ = self.root / ".venv/bin"
        bin_.mkdir(parents=True)
        client = CLIENT.format(python=sys.executable, root=str(self.root), address=str(self.address))
        for name in ("stonk", "python", "parse", "block"):
            (bin_ / name).write_text(client)
            (bin_ / name).chmod(0o755)
        for tool in ("ruff", "accelerate"):
            if (Path(sys.executable).parent / tool).exists():
                (bin_ / tool).symlink_to(Path(sys.executable).parent / tool)
        (bin_ / "activate").write_text(f'export PATH="{bin_}:$PATH"\n')
        (self.root / ".venv/.ready").touch()  # `make setup` has nothing to do

    # ------------------------------------------------------------------------------------------- one block

    def run(self, block: Block) -> None:
        """Run or check a block. Raises Fault with what it said."""
        if block.mark == OPEN:
            self._run_until_it_answers(block)
        elif block.mark:
            for words in commands(block.code):
                self._check(words)
        elif block.language == "python":
            self._bash("block -", block.code)
        else:
            self._bash(block.code)

    def _start(self, code: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", code], cwd=self.root, env=self.environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
        )  # fmt: skip

    def _bash(self, code: str, said: str | None = None, what: str | None = None) -> str:
        process = self._start(code, stdin=subprocess.PIPE)
        try:
            output, _ = process.communicate(said, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            raise Fault(f"{what or code}\nnot done after {SECONDS} seconds") from None
        if process.returncode:
            raise Fault(f"{what or code}\nexit status {process.returncode}:\n{output[-3000:]}")
        return output

    def _call(self, *words: str, **settings: str) -> str:
        line = shlex.join(words)
        named = "".join(f"{key}={shlex.quote(value)} " for key, value in settings.items())
        return self._bash(named + line)

    def _run_until_it_answers(self, block: Block) -> None:
        """Run a block that serves a page, until the page is there."""
        port = free_port()
        process = self._start(f"export DOCS_PORT={port}\n{block.code}", stdin=subprocess.DEVNULL)
        until = time.monotonic() + SECONDS
        try:
            while time.monotonic() < until and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                        if answer.status == 200:
                            return
                except OSError:
                    time.sleep(0.2)
        finally:
            output = _end(process)
        raise Fault(f"{block.code}\nno answer on its port; exit status {process.returncode}:\n{output[-3000:]}")

    # --------------------------------------------------------------------------------------- marked commands

    def _check(self, words: list[str]) -> None:
        """What can be known of a command that cannot be run here. Raises Fault, also where that is nothing."""
        settings = {}
        while words and (setting := re.fullmatch(r"(\w+)=(.*)", words[0])):
            settings[setting[1]] = setting[2]
            words = words[1:]
        if not words:
            return
        program, *rest = words
        if program.removeprefix(".venv/bin/") in ("stonk", "python", "accelerate", "pip"):
            program = program.removeprefix(".venv/bin/")
        if program in ("export", "source", "cd"):
            self._call("type", program)
        elif program == "stonk":
            self._check_stonk(rest)
        elif program in ("./train_stage1.sh", "./train_stage2.sh"):
            self._check_stage_script(program, rest)
        elif program == "accelerate" and rest[:1] == ["launch"] or words[1:3] == ["-m", "accelerate.commands.launch"]:
            self._check_launch(rest[rest.index("launch") + 1 :] if "launch" in rest else rest[2:])
        elif program == "python" and rest[:1] and rest[0].endswith(".py"):
            self._call("parse", *rest)
        elif program.startswith("slurm/") and program.endswith(".sh"):
            self._call(program, *rest, "--dry-run", **settings)
        elif program == "sbatch":
            self._check_sbatch(rest, settings)
        elif program == "make":
            self._call("make", "--dry-run", *rest)
        elif program == "pip" and rest[:1] == ["install"]:
            self._check_install(rest[1:])
        else:
            raise Fault(f"{shlex.join(words)}\ncannot be checked without running it: take the mark away, or teach "
                        "tests/helpers/docs_shell.py what to check of it")  # fmt: skip

    def _check_stonk(self, argv: list[str]) -> None:
        if argv[:1] in (["sft"], ["grpo"]):
            self._call("stonk", "check", "--trainer", argv[0], *argv[1:])
        elif argv[:1] == ["check"]:
            self._call("stonk", *argv)
        else:
            self._call("parse", *argv)

    def _check_stage_script(self, script: str, flags: list[str]) -> None:
        if not os.access(self.root / script, os.X_OK):
            raise Fault(f"{script} is no script of the repository")
        if script == "./train_stage2.sh":
            if not flags or flags[0].startswith("-"):
                raise Fault(f"{script} {shlex.join(flags)}\nwhich Stage I model?")
            flags = ["--stage1_model", *flags]
        if "--config" not in flags:
            flags = ["--config", f"stocks/{script[8:14]}", *flags]
        self._check_stonk(["grpo", *flags])

    def _check_launch(self, words: list[str]) -> None:
        """`accelerate launch FLAGS -m stonk_trainer.grpo FLAGS`."""
        if "-m" not in words or words[words.index("-m") + 1] not in ("stonk_trainer.sft", "stonk_trainer.grpo"):
            raise Fault(f"accelerate launch {shlex.join(words)}\nlaunches neither -m stonk_trainer.sft nor .grpo")
        at = words.index("-m")
        self._call("parse", "accelerate", *words)
        for flag, value in zip(words, words[1:at], strict=False):
            if flag == "--config_file" and not (self.root / value).is_file():
                raise Fault(f"accelerate launch {shlex.join(words)}\n{value} is not there")
        self._check_stonk([words[at + 1].removeprefix("stonk_trainer."), *words[at + 2 :]])

    def _check_sbatch(self, words: list[str], settings: dict[str, str]) -> None:
        scripts = [word for word in words if word.endswith(".sbatch")]
        if len(scripts) != 1:
            raise Fault(f"sbatch {shlex.join(words)}\nwhich script?")
        self._call("bash", "-n", scripts[0])
        text = (self.root / scripts[0]).read_text() + (self.root / "slurm/common.sh").read_text()
        exported = [word.partition("--export=")[2] for word in words if word.startswith("--export=")]
        names = {part.partition("=")[0] for one in exported for part in one.split(",")} - {"ALL"} | settings.keys()
        if unknown := [name for name in names if f"${{{name}:-" not in text]:
            raise Fault(f"sbatch {shlex.join(words)}\n{scripts[0]} does not read {', '.join(sorted(unknown))}")

    def _check_install(self, words: list[str]) -> None:
        """Packages are those of this project: itself with extras, its requirements, those of its extras."""
        import tomllib

        project = tomllib.loads((self.root / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        known = " ".join([(self.root / "requirements.txt").read_text(), *sum(extras.values(), [])])
        for word in [word for word in words if not word.startswith("-")]:
            name, of = re.fullmatch(r"([\w.-]+?)(?:\[([\w,-]+)\])?(?:[=<>~].*)?", word).groups()
            own = name in (project["name"], ".")
            if own and set(filter(None, (of or "").split(","))) - extras.keys():
                raise Fault(f"pip install {word}\nthe extras are {', '.join(extras)}")
            if not own and not re.search(rf"\b{re.escape(name)}\b", known):
                raise Fault(f"pip install {word}\nis no package of requirements.txt or of an extra")


def _end(process: subprocess.Popen) -> str:
    """End a block and all it has started; what it has said."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            return process.communicate(timeout=10)[0]
        except ProcessLookupError:
            return process.communicate()[0]
        except subprocess.TimeoutExpired:
            continue
    return ""


def copy_tracked(target: Path) -> None:
    """Copy the tracked files of the working tree, links as links."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def write_files_of_a_reader(folder: Path) -> None:
    """Real prices under the names the pages use for what a reader brings.

    BTC-USD.csv is the embedded series three years later, so that it reaches beyond the dates of recipes/btc.
    """
    import pandas as pd

    stocks = pd.read_csv(ROOT / "stonk_trainer/assets/sp500_closes.csv.gz", index_col="Date")
    btc = pd.read_csv(ROOT / "stonk_trainer/assets/crypto_closes.csv.gz", index_col="Date")["BTC"].dropna()
    btc.index = (pd.to_datetime(btc.index) + pd.DateOffset(years=3)).strftime("%Y-%m-%d")
    recent = stocks.loc["2018":, ["AAPL", "MSFT", "KO"]]
    long = recent.rename_axis("date").melt(var_name="ticker", value_name="close", ignore_index=False).reset_index()
    recent["AAPL"].rename("Close").to_csv(folder / "AAPL.csv")
    btc[~btc.index.duplicated()].loc[:"2022-04"].rename("Close").to_csv(folder / "BTC-USD.csv")
    long.to_csv(folder / "prices.csv", index=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# ------------------------------------------------------------------------------------------------- the server


def smaller(argv: list[str]) -> list[str]:
    """The flags that bring a command to the size of a test, appended: the command's own are read as they stand."""
    from stonk_trainer.errors import UserError
    from stonk_trainer.recipe import task_class_of

    command, *rest = argv
    if {"-h", "--help"} & set(rest):
        return argv
    if command in ("sft", "grpo", "eval"):
        try:
            task = task_class_of(rest).__name__.lower()
        except UserError:
            return argv  # the command says it
        audit = ["--tickers", "AAPL", "KO", "MSFT"] if "--audit" in rest else []
        return argv + SMALL[command, task].split() + audit + _instead_of_the_embedded(rest, task)
    if command == "codec":
        return argv + (["--steps", "20"] if rest[:1] == ["train"] else [])
    if command == "demo":
        return [*argv, "--port", os.environ["DOCS_PORT"]]
    if command == "forecast" and "--evaluate" in rest and "demo" in " ".join(rest):
        rest += ["--test_end", "2019-04-30"]
    return [command, *rest, *SMALL.get((command, ""), "").split()]


SMALL = {
    ("sft", "stocks"): "--max_steps 2 --max_train_samples 24 --max_eval_samples 4 --dtype float32",
    ("grpo", "stocks"): "--max_steps 2 --max_train_samples 24 --max_eval_samples 4 --dtype float32 --save_steps 1 "
    "--max_completion_length 24",
    ("eval", "stocks"): "--max_eval_samples 24 --max_completion_length 24",
    ("sft", "reasoning"): "--max_steps 2 --max_length 512 --dtype float32",
    ("grpo", "reasoning"): "--max_steps 2 --max_train_samples 32 --max_completion_length 24 --dtype float32",
    ("eval", "reasoning"): "--limit 2 --max_gen_toks 8",
    ("sft", "sums"): "--dtype float32",
    ("grpo", "sums"): "--dtype float32",
    ("eval", "sums"): "--max_completion_length 8",
    ("sft", "btc"): "--max_steps 2",
    ("grpo", "btc"): "--max_steps 2",
    ("sample", ""): "--max_prompts 80 --max_completion_length 8",
    ("forecast", ""): "--paths 100 --step 50",
    ("predict", ""): "--samples 2 --max_completion_length 24",
}


def _instead_of_the_embedded(flags: list[str], task: str) -> list[str]:
    """`--model TINY` where a run would start from the embedded model."""
    from stonk_trainer.recipe import ALIASES, read_yaml, take_option

    name, flags = take_option(flags, "--config")
    model = read_yaml(name).get("model_name_or_path") if name else None
    for key in ("model_name_or_path", *(alias for alias, of in ALIASES.items() if of == "model_name_or_path")):
        given, flags = take_option(flags, f"--{key}")
        model = given or model
    tiny = json.loads(os.environ["DOCS_MODELS"])
    return ["--model", tiny.get(task, tiny["reasoning"])] if str(model).startswith("embedded:") else []


class Parsed(BaseException):
    """Flags and recipe are right; the command does not go on."""


def parse_only(argv: list[str]) -> None:
    """Parse the flags and the recipe of a command and stop there. A file that a shipped recipe makes may be missing."""
    import argparse
    import runpy

    from stonk_trainer import cli
    from stonk_trainer.errors import UserError
    from stonk_trainer.preflight.check import recipe_that_makes
    from stonk_trainer.recipe import resolve

    build, parse, judge = resolve.build, argparse.ArgumentParser.parse_args, resolve.check

    def built(*args):
        part = build(*args)
        if sys._getframe(1).f_code.co_name == "load_command":  # a command that trains nothing
            raise Parsed
        return part

    def judged(*args):
        judge(*args)
        raise Parsed

    def parsed(self, *args, **kwargs):
        found = parse(self, *args, **kwargs)
        if not hasattr(self, "dataclass_types"):  # TRL's parser reads single values too
            raise Parsed
        return found

    resolve.build, resolve.check, argparse.ArgumentParser.parse_args = built, judged, parsed
    try:
        if argv[0] == "accelerate":
            from accelerate.commands.launch import launch_command_parser

            launch_command_parser().parse_args(argv[1:])
        elif argv[0].endswith(".py"):
            if "ArgumentParser" not in Path(argv[0]).read_text():
                raise UserError(f"{argv[0]} parses no flags: nothing of it can be checked")
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
        else:
            sys.argv = ["stonk", *argv]
            module, function, _, _ = cli.COMMANDS[argv[0]] if argv[0] in cli.COMMANDS else cli.main(argv)
            command = getattr(__import__(module, fromlist=[function]), function)
            getattr(command, "__wrapped__", command)(argv[1:])
    except Parsed:
        return
    except UserError as error:
        if recipe_that_makes(str(error)):
            return
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    raise SystemExit(f"stonk {shlex.join(argv)} ended without parsing anything")


def work(program: str, argv: list[str]) -> None:
    """Do what the client was called for."""
    from stonk_trainer import cli

    if program == "parse":
        parse_only(argv)
    elif program == "block":
        exec(compile(sys.stdin.read(), "<python block>", "exec"), {"__name__": "__main__"})
    elif program == "python":  # -m stonk_trainer.COMMAND
        cli.main(smaller([argv[1].removeprefix("stonk_trainer."), *argv[2:]]))
    else:
        cli.main(smaller(argv) if argv else argv)


def serve(address: str) -> None:
    """Import once, then fork for every client."""
    import importlib
    import pkgutil

    import accelerate.commands.launch  # noqa: F401
    import lm_eval.evaluator
    import lm_eval.models.huggingface
    import lm_eval.tasks  # noqa: F401
    import trl.trainer.grpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401

    import stonk_trainer

    for module in pkgutil.walk_packages(stonk_trainer.__path__, "stonk_trainer."):
        importlib.import_module(module.name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(16)
    os.rename(address + ".new", address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks below
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _attend(connection)
            os._exit(0)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork the worker of one client; tell the client its number and, in the end, its status."""
    import select

    size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    first, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    rest = connection.recv(size - 1, socket.MSG_WAITALL)
    program, argv, folder, environment = json.loads(first + rest)
    worker = os.fork()
    if worker == 0:
        connection.close()
        _become(descriptors, folder, environment)
        os._exit(_status_of(program, argv))
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"{worker}\n".encode())
    ended = os.pidfd_open(worker)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:  # the client is gone
        os.kill(worker, signal.SIGTERM)
        if not select.select([ended], [], [], 5)[0]:
            os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(descriptors: list[int], folder: str, environment: dict[str, str]) -> None:
    """This process has the client's terminal, folder and environment."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (open(i, "r" if i == 0 else "w", closefd=False) for i in range(3))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _status_of(program: str, argv: list[str]) -> int:
    status = 0
    try:
        work(program, argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
