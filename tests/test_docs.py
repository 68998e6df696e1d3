"""Every command, every Python block and every link of the documentation works."""

import ast
import re
import time
from pathlib import Path

import pytest
from docs_shell import MARKS, ROOT, Block, Fault, Sandbox, blocks, commands, pages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandbox(tiny_model_folder, adding_model_folder):
    with Sandbox({"stocks": tiny_model_folder, "reasoning": adding_model_folder}) as one:
        yield one


def test_every_command_of_the_documentation_runs(sandbox):
    """README first, then page by page; all faults are told together. `pytest -s` shows how long each block takes.

    A block that has run word for word on an earlier page, such as `make demo`, is not run again.
    """
    faults, done = [], set()
    for page in pages(ROOT):
        for block in blocks(page.read_text(), str(page.relative_to(ROOT))):
            if (block.mark, block.code) in done:
                continue
            start = time.monotonic()
            try:
                sandbox.run(block)
                done.add((block.mark, block.code))
            except Fault as fault:
                faults.append(f"{block}\n{fault}")
            print(f"{time.monotonic() - start:6.1f} s  {block}  {block.mark or ''}")
    assert not faults, f"{len(faults)} of the blocks fail:\n\n" + "\n\n".join(faults)


# ---------------------------------------------------------------------------------- what the test itself must catch

RUN = "stonk score --from stocks/demo/stage1 --ticker AAPL --date 2019-03-04 > row.json"
MARKED = "./train_stage2.sh runs/stage1/best_model --kl_coef 0.03"
BROKEN = {
    "a misspelt flag": (RUN.replace("--ticker", "--tikcer"), None, "tikcer"),
    "an unknown recipe": (RUN.replace("demo/stage1", "demo/stage9"), None, "stage9"),
    "a missing file": ("stonk score --row none.json --completion -", None, "none.json"),
    "the first of several commands": (f"stonk scoer\n{RUN}", None, "no such command"),
    "the first of a pipe": ("stonk score --help --from nothing | cat\nfalse | cat", None, "exit status 1"),
    "marked, a misspelt flag": (MARKED.replace("kl_coef", "kl_coeff"), "needs a GPU", "kl_coeff"),
    "marked, a wrong value": (MARKED.replace("0.03", "much"), "needs a GPU", "much"),
    "marked, an unknown recipe": ("stonk sft --config stocks/warmup9", "needs the Hub", "warmup9"),
    "marked, a missing script": ("./train_stage3.sh", "needs a GPU", "cannot be checked"),
    "marked, a missing model": ("./train_stage2.sh", "needs a GPU", "which Stage I model"),
    "marked, a missing file of settings": (
        "accelerate launch --config_file recipes/accelerate/none.yaml -m stonk_trainer.grpo --config stocks/stage1",
        "needs a GPU",
        "none.yaml is not there",
    ),
    "marked, launch of another module": ("accelerate launch -m stonk_trainer.gpro", "needs a GPU", "launches neither"),
    "marked, another command": ("stonk eval --config stocks/eval --modles x", "needs a GPU", "modles"),
    "marked, a command without a recipe": ("stonk merge runs/stage1/best_adapter --to ggfu x", "needs a GPU", "ggfu"),
    "marked, an unknown command": ("stonk evaluate", "needs a GPU", "no such command"),
    "marked, a folder nobody makes": ("stonk eval --config stocks/eval --models ./none", "needs a GPU", "none"),
    "marked, a benchmark's flag": (".venv/bin/python benchmarks/controls.py --step 3x", "takes long", "--step"),
    "marked, Slurm": ("sbatch --export=ALL,NO_SETTING=1 slurm/sft.sbatch", "needs a cluster", "NO_SETTING"),
    "marked, a chain that is not there": ("slurm/half_run.sh", "needs a cluster", "half_run"),
    "marked, make": ("make tset", "takes long", "tset"),
    "marked, an extra": ("pip install 'stonk-trainer[fecth]'", "needs the network", "fetch"),
    "marked, what nobody can check": ("curl -O example.org/data.csv", "needs the network", "cannot be checked"),
    "a page that never opens": ("echo listening", "stays open", "no answer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_command_in_a_page_is_found(case, sandbox):
    code, mark, said = BROKEN[case]
    text = f"Text.\n\n{f'<!-- {mark} -->' if mark else ''}\n```bash\n{code}\n```\n"
    (block,) = blocks(text, "copy.md")
    with pytest.raises(Fault, match=re.escape(said)):
        sandbox.run(block)


SLIPS = {  # in a copy of a real page: (page, what stands there, what is written instead)
    "a flag": ("docs/rewards.md", "--ticker AAPL", "--tikcer AAPL"),
    "a recipe": ("docs/start.md", "stonk check stocks/demo/stage1 --lr", "stonk check stocks/demo/stage --lr"),
    "a file": ("docs/rewards.md", "--row row.json --completion", "--row rows.json --completion"),
    "a marked flag": ("docs/start.md", "--kl_coef 0.03", "--kl_coeff 0.03"),
    "a marked recipe": ("docs/clusters.md", "--config stocks/stage1\n", "--config stocks/stage7\n"),
    "a line of Python": ("docs/your-data.md", "import random", "import randon"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_copy_of_a_page_is_found(slip, sandbox):
    page, stands, instead = SLIPS[slip]
    text = (ROOT / page).read_text()
    assert stands in text
    right, wrong = blocks(text, page), blocks(text.replace(stands, instead), page)
    changed = [copy for block, copy in zip(right, wrong, strict=True) if block.code != copy.code]
    assert changed
    for block in changed:
        with pytest.raises(Fault):
            sandbox.run(block)


def test_the_commands_that_were_broken_are_right_as_they_stand(sandbox):
    sandbox.run(Block("copy.md", 1, "bash", None, RUN))
    sandbox.run(Block("copy.md", 1, "bash", "needs a GPU", MARKED))


def test_a_python_block_that_fails_is_found(sandbox):
    (block,) = blocks("```python\nfrom stonk_trainer.errors import UsreError\n```\n", "copy.md")
    with pytest.raises(Fault, match="UsreError"):
        sandbox.run(block)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```sh\nstonk report\n```\n", "call the block ```bash"),
        ("```console\n$ stonk report\n```\n", "call the block ```bash"),
        ("```bash skip\nstonk report\n```\n", "call the block ```bash"),
        ("```\nstonk report runs/demo\n```\n", "a block that is not run"),
        ("```\n.venv/bin/stonk report runs/demo\n```\n", "a block that is not run"),
        ("<!-- needs a GPUs -->\n```bash\nmake demo\n```\n", "is not one of"),
        ("<!-- takes long -->\n```python\nimport torch\n```\n", "always run"),
        ("```bash\nmake demo\n", "never ends"),
    ],
)
def test_no_block_is_passed_over_in_silence(text, said):
    with pytest.raises(Fault, match=said):
        blocks(text, "copy.md")


def test_a_mark_counts_on_the_line_before_its_fence_only():
    for mark in MARKS:
        (block,) = blocks(f"<!-- {mark} -->\n```bash\ntrue\n```\n", "copy.md")
        assert block.mark == mark
        (block,) = blocks(f"<!-- {mark} -->\n\n```bash\ntrue\n```\n", "copy.md")
        assert block.mark is None


def test_commands_are_read_as_a_shell_reads_them():
    code = "A=1 stonk x 'a b' > out  # why\nprintf 'x|y\\n' | stonk \\\n  y && z\n"
    assert commands(code) == [["A=1", "stonk", "x", "a b"], ["printf", "x|y\\n"], ["stonk", "y"], ["z"]]


# ------------------------------------------------------------------------------------------------------------ links


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"^(```+).*?^\1", "", text, flags=re.M | re.S), re.M)
    plain = [re.sub(r"\[(.+?)\]\(.*?\)", r"\1", heading).replace("`", "").lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(page: Path, text: str) -> list[str]:
    prose = re.sub(r"^(```+).*?^\1", "", text, flags=re.M | re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path) if path else page
        if not file.exists() or anchor and anchor not in anchors(file.read_text()):
            broken.append(f"{page.name}: {target}")
    return broken


def test_every_link_within_the_documentation_leads_somewhere():
    assert [link for page in pages(ROOT) for link in broken_links(page, page.read_text())] == []


def test_a_broken_link_is_found():
    page = ROOT / "README.md"
    assert broken_links(page, "[a](docs/none.md) [b](docs/design.md#no-such-part)") == [
        "README.md: docs/none.md",
        "README.md: docs/design.md#no-such-part",
    ]
    assert broken_links(page, "[a](docs/design.md#the-house) [b](#the-map) [c](https://example.org)") == []


# --------------------------------------------------------------------------------------------- what a command says


def said_in(folder: Path) -> str:
    """Every text in the package's code, a line each; what an f-string fills in is …."""
    texts = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[\d.]*[sdgf]", "…", node.value))
    return "\n".join(" ".join(text.split()) for text in texts)


def test_what_troubleshooting_quotes_is_what_the_code_says():
    """Quotes of the tables' first column, piece by piece between the values, which stand there as X, … or a number."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    quoted = ["".join(found) for cell in cells for found in re.findall(r"`([^`]+ [^`]+)`|\"([^\"]+ [^\"]+)\"", cell)]
    said = said_in(ROOT / "stonk_trainer")
    pieces = [piece.strip(" :(),;") for quote in quoted for piece in re.split(r"…|\bX\b|\b\d[\d.%]*", quote)]
    assert len(quoted) > 25
    assert [piece for piece in pieces if " " in piece and piece not in said] == []
