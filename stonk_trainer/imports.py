"""Rewards and tasks of one's own, by import path: `reward: [accuracy, my_rewards:humility]`, `task: my_task:MyTask`.

A reward is a function as TRL has it, f(prompts, completions, completion_ids, **columns) -> list[float]. It is imported
from the current folder, the recipe's, or the environment, in this order, and only when a recipe or a flag that the user
gave names it: naming a module runs its code. Every fault of it is one line that begins with its path.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import numbers
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from stonk_trainer.errors import UserError, first_line

Reward = Callable[..., list]  # of float, or None where it has nothing to say


@dataclass(frozen=True)
class ImportRules:
    """From where a recipe's import paths are imported. refused: why nothing may be imported; None where it may."""

    folders: tuple[Path, ...] = ()
    refused: str | None = "only a recipe or a flag that you give may import"


def is_imported(name: str) -> bool:
    """Whether a reward or a task is named by its import path."""
    return ":" in name


def name_of(reward: str) -> str:
    """What a reward is called in logs and tables: `my_rewards:humility` is humility."""
    return reward.rpartition(":")[2]


def check_names(rewards: Sequence[str], known: Sequence[str]) -> None:
    """Raise UserError unless each of `rewards` is one of `known` or an import path, and no two have one name."""
    for reward in rewards:
        module, _, function = reward.partition(":")
        if is_imported(reward) and not (all(map(str.isidentifier, module.split("."))) and function.isidentifier()):
            raise UserError(
                f"reward: {reward} is not an import path: write module:function, such as my_rewards:humility"
            )
        if not is_imported(reward) and reward not in known:
            raise UserError(f"reward: {reward} is not one of {', '.join(known)}, nor an import path (module:function)")
        if is_imported(reward) and function in known:
            raise UserError(f"reward: {reward} has the name of the built-in reward {function}: give it another")
    names = [name_of(reward) for reward in rewards]
    if len(set(names)) != len(names) or not names:
        raise UserError(f"reward: {' '.join(rewards) or '(empty)'}: name each reward once, and at least one")


def import_object(key: str, path: str, rules: ImportRules) -> Any:
    """What `module:name` names. Raises UserError, one line that begins with the recipe's `key` and the path."""
    if rules.refused:
        raise UserError(f"{key}: {path} is not imported: {rules.refused}")
    module_name, _, name = path.partition(":")
    module = _import(key, path, module_name, rules.folders)
    found = getattr(module, name, None)
    if found is None:
        where = getattr(module, "__file__", None) or module_name
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        there = [value.__name__ for value in own if callable(value) and not value.__name__.startswith("_")]
        raise UserError(f"{key}: {path}: {where} has no {name}" + (f"; it has {', '.join(there)}" if there else ""))
    return found


def load_reward(path: str, rules: ImportRules) -> Reward:
    """The function that `module:function` names, as a reward whose result is checked at every call.

    Raises UserError, one line that begins with the path, for whatever is wrong with it.
    """
    function = import_object("reward", path, rules)
    if not callable(function) or inspect.isclass(function):
        raise UserError(f"reward: {path} is not a function (it is of type {type(function).__name__})")
    if inspect.iscoroutinefunction(function):
        raise UserError(f"reward: {path} is an async function: write a plain one")

    @functools.wraps(function)
    def reward(prompts: Sequence, completions: Sequence, **columns: Any) -> list:
        given = {"prompts": prompts, "completions": completions, **columns}
        try:
            inspect.signature(function).bind(**given)
        except TypeError as error:
            called = f"it is called with {', '.join(given)} by name"
            raise UserError(f"reward: {path}: {error}: {called}; end its arguments with **columns") from error
        try:
            earned = function(**given)
        except UserError:
            raise
        except Exception as error:
            if os.environ.get("STONK_TRACEBACK"):
                raise
            raise UserError(
                f"reward: {path} failed: {type(error).__name__}: {first_line(error)}{_place(error)}"
            ) from error
        return _checked(path, earned, len(completions))

    reward.__name__ = name_of(path)
    return reward


def named(function: Reward, name: str) -> Reward:
    """The function under the name by which TRL logs it."""
    if getattr(function, "__name__", None) == name:
        return function

    @functools.wraps(function)
    def reward(*args: Any, **kwargs: Any) -> list:
        return function(*args, **kwargs)

    reward.__name__ = name
    return reward


def as_trl_calls(
    prompts: Sequence, completions: Sequence, completion_ids: Sequence, columns: Mapping[str, Sequence]
) -> dict[str, Any]:
    """The keyword arguments with which TRL's GRPOTrainer calls a reward, outside a run."""
    from transformers import TrainerState

    of_trainer = {"trainer_state": TrainerState(), "log_extra": _ignore, "log_metric": _ignore}
    return {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, **columns, **of_trainer}


def _ignore(*args: Any) -> None:
    """In the place of the trainer's logging."""


def _checked(path: str, earned: Any, count: int) -> list[float | None]:
    """What a reward returned, as floats and None. Raises UserError unless it is one number or None per completion."""
    try:
        values = list(earned)
    except TypeError:
        raise UserError(f"reward: {path} returned {type(earned).__name__}, not a list of numbers") from None
    if len(values) != count:
        raise UserError(f"reward: {path} returned {len(values)} values for {count} completions: one each is needed")
    for value in values:
        if value is not None and not (isinstance(value, numbers.Real) and math.isfinite(value)):
            shown = f"{value!r}"[:60]
            raise UserError(f"reward: {path} returned {shown}, which is not a finite number (or None)")
    return [None if value is None else float(value) for value in values]


def _import(key: str, path: str, module_name: str, folders: Sequence[Path]) -> ModuleType:
    places = [str(folder) for folder in folders]
    top = module_name.partition(".")[0]
    found, loaded = PathFinder.find_spec(top, places), sys.modules.get(top)
    if found and found.origin and loaded and getattr(loaded, "__file__", None) != found.origin:
        if not getattr(loaded, "_stonk_imported", False):
            raise UserError(
                f"{key}: {path}: {found.origin} has the name of a module that is in use already: rename the file"
            )
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]  # of another folder, imported in this process before
    try:
        with _searched_first(places):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            looked = ", ".join(places)
            raise UserError(f"{key}: {path}: no module {error.name} in {looked}, nor in the environment") from error
        raise UserError(f"{key}: {path}: {module_name} imports {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        if os.environ.get("STONK_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {first_line(error)}{_place(error)}"
        raise UserError(f"{key}: {path}: {module_name} cannot be imported: {what}") from error
    if found:
        vars(sys.modules[top])["_stonk_imported"] = True
    return module


@contextmanager
def _searched_first(places: Sequence[str]) -> Iterator[None]:
    """Look in `places` before everything else, and from then on after it: what is imported later shadows nothing."""
    before = list(sys.path)
    importlib.invalidate_caches()
    sys.path[:0] = places
    try:
        yield
    finally:
        sys.path[:] = before + [place for place in places if place not in before]


def _place(error: BaseException) -> str:
    """Where in the user's file an error arose."""
    if isinstance(error, SyntaxError):
        return ""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""
