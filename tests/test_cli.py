import subprocess
import sys

import pytest

from stonk_trainer.cli import COMMANDS, main


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)


def test_help_imports_no_heavy_library_and_lists_the_commands():
    heavy = "('torch', 'transformers', 'trl', 'datasets', 'pandas', 'numpy')"
    code = (
        "import sys; from stonk_trainer.cli import main; main(['--help']); "
        f"print('heavy:', [name for name in {heavy} if name in sys.modules])"
    )
    ended = run("-c", code)
    assert ended.returncode == 0, ended.stderr
    assert "heavy: []" in ended.stdout
    for command in COMMANDS:
        assert f"stonk {command} " in ended.stdout


def test_no_command_is_a_request_for_help(capsys):
    main([])
    assert "usage: stonk COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["gripo", "--config", "x"])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: stonk gripo: no such command; did you mean grpo?\n"


def test_the_version_is_the_packages(capsys):
    from stonk_trainer import __version__

    main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


def test_merging_what_is_no_adapter_is_one_line_and_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["merge", str(tmp_path), str(tmp_path / "out")])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config", "stocks/stage1", "--learning_rat", "1e-5"], ["--learning_rat", "did you mean learning_rate?"]),
        (["--config", "stocks/demo/stage1", "--model", "./nowhere"], ["./nowhere not found"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml not found"]),
    ],
    ids=["unknown flag", "missing model", "missing recipe"],
)
def test_wrong_input_is_one_line_on_stderr_and_status_2(flags, words, tmp_path):
    ended = run("-m", "stonk_trainer.grpo", *flags, "--out", str(tmp_path / "run"))
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), ended.stderr
    assert [word for word in words if word not in lines[0]] == []
    assert not (tmp_path / "run").exists()


def test_a_reader_that_has_had_enough_gets_no_traceback():
    endless = (
        "from stonk_trainer.errors import exits_cleanly; exits_cleanly(lambda: [print(i) for i in range(10**6)])()"
    )
    command = ["bash", "-c", f'{sys.executable} -c "{endless}" | head -n 1; exit ${{PIPESTATUS[0]}}']
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


@pytest.mark.parametrize(
    ("name", "near"),
    [("best_modle", "; did you mean best_model?"), ("BEST_MODEL", "; did you mean best_model?"), ("x", "")],
)
def test_the_nearest_known_name_is_offered(name, near):
    from stonk_trainer.errors import did_you_mean

    assert did_you_mean(name, ["best_model", "runs"]) == near


def test_a_misspelt_model_or_ticker_and_a_day_without_prices_name_the_nearest(stonk, tiny_model_folder, capsys):
    misspelt = tiny_model_folder.with_name("tinny")
    said = {
        f"predict --model {misspelt}": f"model {misspelt} not found; did you mean {tiny_model_folder}?",
        f"predict --model {tiny_model_folder} --csv embedded:sp500 --tickers AAPPL": "did you mean AAPL?",
        f"predict --model {tiny_model_folder} --csv embedded:sp500 --tickers KO --date 2022-12-25": "2022-12-23",
    }
    for command, words in said.items():
        with pytest.raises(SystemExit) as ended:
            stonk(*command.split())
        assert ended.value.code == 2 and words in capsys.readouterr().err
