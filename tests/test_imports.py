"""Rewards of a user's own, by import path: what is loaded from where, and how each fault is told."""

import sys
import textwrap

import pytest

from stonk_trainer.errors import UserError
from stonk_trainer.imports import ImportRules, as_trl_calls, check_names, load_reward, name_of
from stonk_trainer.task import Task, TaskArguments

ANSWERS = [[{"role": "assistant", "content": text}] for text in ("a", "b")]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into a folder, `here` unless said otherwise; returns the rules that find it."""
    before, names = list(sys.path), {"my_rewards"}

    def write(text, name="my_rewards", folder="here"):
        names.add(name)
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(textwrap.dedent(text))
        return ImportRules((tmp_path / "here", tmp_path / "recipe"), None)

    yield write
    sys.path[:] = before
    for name in names - {"json"}:
        sys.modules.pop(name, None)


def call(reward):
    return reward(**as_trl_calls(["p"] * 2, ANSWERS, [[1], [2]], {"label": ["UP", "DOWN"]}))


def test_a_reward_is_called_as_trl_calls_it_and_has_its_functions_name(module):
    rules = module("""
        def humility(prompts, completions, completion_ids, label, **columns):
            assert columns["trainer_state"].global_step == 0
            return [len(ids) if side == "UP" else None for ids, side in zip(completion_ids, label)]
    """)
    reward = load_reward("my_rewards:humility", rules)
    assert reward.__name__ == name_of("my_rewards:humility") == "humility"
    assert call(reward) == [1.0, None]


def test_the_current_folder_is_searched_before_the_recipes_and_both_before_the_environment(module):
    module("def f(completions, **columns): return [2] * len(completions)", folder="recipe")
    rules = module("def f(completions, **columns): return [1] * len(completions)")
    assert call(load_reward("my_rewards:f", rules)) == [1, 1]
    rules = module(
        "def f(completions, **columns): return [3] * len(completions)", name="of_the_recipe", folder="recipe"
    )
    assert call(load_reward("of_the_recipe:f", rules)) == [3, 3]
    assert load_reward("trl.rewards:think_format_reward", rules).__name__ == "think_format_reward"


def test_a_module_of_another_folder_is_not_mistaken_for_one_that_was_imported_before(module, tmp_path):
    assert call(
        load_reward("my_rewards:f", module("def f(completions, **columns): return [1] * len(completions)"))
    ) == [1, 1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_rewards.py").write_text("def f(completions, **columns): return [2] * len(completions)")
    assert call(load_reward("my_rewards:f", ImportRules((tmp_path / "other",), None))) == [2, 2]


@pytest.mark.parametrize(
    "text, path, said",
    [
        ("x = 1", "my_rewards:f", "my_rewards.py has no f"),
        ("def g(**c): return []", "my_rewards:f", "it has g"),
        ("f = 5", "my_rewards:f", "is not a function (it is of type int)"),
        ("class f: pass", "my_rewards:f", "is not a function (it is of type type)"),
        ("async def f(**c): return []", "my_rewards:f", "is an async function"),
        ("def f(:", "my_rewards:f", "cannot be imported: SyntaxError"),
        ("1 / 0", "my_rewards:f", "cannot be imported: ZeroDivisionError: division by zero (my_rewards.py, line 1)"),
        ("import not_there_at_all", "my_rewards:f", "my_rewards imports not_there_at_all, which is not installed"),
        ("raise SystemExit(3)", "my_rewards:f", "cannot be imported: SystemExit"),
        ("x = 1", "your_rewards:f", "no module your_rewards in "),
        ("x = 1", "my_rewards.part:f", "my_rewards.part"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_that_begins_with_the_path(module, text, path, said):
    with pytest.raises(UserError, match="^reward: ") as error:
        load_reward(path, module(text))
    assert str(error.value).startswith(f"reward: {path}") and said in str(error.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("def f(completions): return [1, 1]", "end its arguments with **columns"),
        ("def f(completion, **c): return [1, 1]", "missing a required argument: 'completion'"),
        ("def f(**c): return [1]", "returned 1 values for 2 completions"),
        ("def f(**c): return 1", "returned int, not a list of numbers"),
        ("def f(**c): return ['high', 1]", "returned 'high', which is not a finite number"),
        ("def f(**c): return [float('nan'), 1]", "returned nan, which is not a finite number"),
        ("def f(**c): return [1, [2]]", "returned [2], which is not"),
        ("def f(**c): return [1 / 0]", "failed: ZeroDivisionError: division by zero (my_rewards.py, line 1)"),
    ],
)
def test_what_a_reward_does_wrong_is_one_line_too(module, text, said):
    with pytest.raises(UserError, match="^reward: my_rewards:f") as error:
        call(load_reward("my_rewards:f", module(text)))
    assert said in str(error.value)


def test_a_file_with_the_name_of_a_module_in_use_is_refused(module):
    with pytest.raises(UserError, match="name of a module that is in use already: rename the file"):
        load_reward("json:f", module("def f(**c): return []", name="json"))


def test_later_imports_find_the_users_modules_and_nothing_else_is_shadowed(module):
    rules = module("def f(completions, **c):\n    import helper\n    return [helper.N] * len(completions)")
    module("N = 7", name="helper")
    module("raise RuntimeError('shadowed')", name="colorsys")  # a module of the library that nobody has imported yet
    assert call(load_reward("my_rewards:f", rules)) == [7, 7]
    import colorsys

    assert colorsys.rgb_to_hsv


def test_nothing_is_imported_where_the_rules_refuse(module, tmp_path):
    module(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for rules in (ImportRules(), ImportRules((tmp_path / "here",), "it lies beside a model")):
        with pytest.raises(UserError, match="is not imported: "):
            load_reward("my_rewards:f", rules)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "rewards, said",
    [
        (["acuracy"], "acuracy is not one of accuracy, format, nor an import path"),
        (["my-rewards:f"], "is not an import path"),
        (["my_rewards:"], "is not an import path"),
        ([":f"], "is not an import path"),
        (["a:b:c"], "is not an import path"),
        (["mine:accuracy"], "has the name of the built-in reward accuracy"),
        (["a:f", "b:f"], "name each reward once"),
        ([], "at least one"),
    ],
)
def test_names_are_checked_without_importing_anything(rewards, said):
    with pytest.raises(UserError, match="^reward: ") as error:
        check_names(rewards, ("accuracy", "format"))
    assert said in str(error.value)


def test_functions_come_in_the_order_of_their_names(module):
    def first(completions, **columns):
        return [1] * len(completions)

    def second(completions, **columns):
        return [2] * len(completions)

    class Two(Task):
        REWARDS = ("accuracy", "format")

        def rewards(self, names):
            return [{"accuracy": first, "format": second}[name] for name in names]

    rules = module("def f(completions, **columns): return [0.5] * len(completions)")
    task = Two(TaskArguments(reward=["format", "my_rewards:f", "accuracy"]), imports=rules)
    found = task.reward_functions()
    assert [call(reward) for reward in found] == [[2, 2], [0.5, 0.5], [1, 1]]
    assert [reward.__name__ for reward in found] == ["format", "f", "accuracy"]  # as TRL logs them
