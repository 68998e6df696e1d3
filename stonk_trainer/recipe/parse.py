"""Parse YAML and flags into dataclasses, strictly; which dataclasses, others say.

Every key is parsed by TRL's own argument parser, from the file just as from a flag, so a wrong type or a value
outside its choices is caught in both. Nothing heavier than TRL's configs is imported here.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from stonk_trainer.errors import UserError, did_you_mean
from stonk_trainer.recipe.keys import ALIASES, JUST_MAPPINGS

if TYPE_CHECKING:
    from argparse import Action

    from trl import TrlParser

RECIPES = Path(__file__).parent.parent / "recipes"  # in a checkout a link to the folder beside the package


def find_recipe(name: str) -> Path:
    """A recipe file by path, or a shipped one by its name (`stocks/demo/stage1`)."""
    for path in (Path(name), RECIPES / name, RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UserError(f"recipe {name} not found: give a YAML file, or the name of a shipped one such as stocks/stage1")


def read_yaml(name: str) -> dict[str, Any]:
    """The keys of a recipe (a path, or the name of a shipped one), read as YAML 1.2: `no` is text, 1e-5 a number.

    Raises UserError for what is not a mapping, and for a duplicate key.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    path = find_recipe(name)
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except DuplicateKeyError as error:
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise UserError(f"{path}: duplicate key: {key} (line {error.problem_mark.line + 1}): keep one") from error
    except (YAMLError, ValueError, TypeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path} is {found}: a recipe is `key: value` lines, such as task: stocks")
    return {str(key): value for key, value in values.items()}


def read_config(argv: list[str]) -> tuple[str | None, dict[str, Any], list[str]]:
    """(the recipe's name, its values, the flags besides)."""
    path, flags = take_option(argv, "--config")
    return path, read_yaml(path) if path else {}, flags


def merge(
    parser: TrlParser, path: str | None, file_values: dict[str, Any], flags: list[str], trainer: str
) -> tuple[dict[str, Any], set[str]]:
    """The values of file and flags under the parser's own keys, and which of them came as flags."""
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in file_values.items():
        name = canonical(key, parser, trainer)
        if name in values:
            raise UserError(f"{path}: {spelled[name]} and {key} are the same key; keep one")
        spelled[name] = key
        values[name] = parse_file_value(parser, path, name, value)
    namespace = _parse_flags(parser, [_canonical_flag(flag, parser, trainer) for flag in flags])
    return values | namespace, set(namespace)


def take_option(flags: list[str], option: str) -> tuple[str | None, list[str]]:
    """Take `option VALUE` or `option=VALUE` out of `flags`; the last one wins."""
    value, rest = None, []
    items = iter(flags)
    for item in items:
        if item == option:
            value = next(items, None)
            if value is None:
                raise UserError(f"{option} needs a value")
        elif item.startswith(option + "="):
            value = item.split("=", 1)[1]
        else:
            rest.append(item)
    return value, rest


def canonical(name: str, parser: TrlParser, trainer: str) -> str:
    """The parser's name of a key: `kl_coef` → `beta`; a key that it knows by itself is its own name.

    Where TRL's key is not known, another name of the same may be: `batch` → `batch_size` of a codec's recipe.
    """
    key = ALIASES.get(name, name)
    if trainer == "eval" and key == "model_name_or_path":
        return "models"
    same = [alias for alias, of in ALIASES.items() if of == key]
    return next((known for known in (name, key, *same) if action_of(parser, known)), name)


def _canonical_flag(flag: str, parser: TrlParser, trainer: str) -> str:
    """`--kl-coef=0.1` → `--beta=0.1`; what is not a flag is left as it is."""
    if not flag.startswith("--") or len(flag) == 2:
        return flag
    name, equals, value = flag[2:].partition("=")
    return f"--{canonical(name.replace('-', '_'), parser, trainer)}{equals}{value}"


def strict_parser(dataclasses: tuple[type, ...], prog: str, description: str, example: str) -> TrlParser:
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message):
            raise UserError(message)

    return Parser(
        dataclasses,
        allow_abbrev=False,
        prog=prog,
        usage=f"{prog} --config RECIPE.yaml [--key value ...]",
        description=description,
        epilog=f"example: {example}",
    )


def action_of(parser: TrlParser, key: str) -> Action | None:
    return next((a for a in parser._actions if a.dest == key and a.option_strings), None)


def _hint(parser: TrlParser, key: str) -> str:
    return did_you_mean(key, {a.dest for a in parser._actions} | set(ALIASES))


def parse_file_value(parser: TrlParser, path: str | None, key: str, value: Any) -> Any:
    """One key of the file through the same conversion and choices as its flag."""
    action = action_of(parser, key)
    if action is None:
        raise UserError(f"{path}: unknown key {key}: {value}{_hint(parser, key)}")
    if value is None:
        if key not in _optional_keys(parser):
            raise UserError(f"{path}: {key} is empty: give a value, or leave the key out")
        return None
    choices = [str(c.value if hasattr(c, "value") else c) for c in action.choices or []]
    if isinstance(value, bool) and str(value).lower() in choices:
        value = str(value).lower()
    many = action.nargs in ("+", "*")
    if isinstance(value, dict):
        if not _takes_mapping(parser, key):
            raise UserError(f"{path}: {key}: {value} is a mapping, but one value is expected")
        try:
            words = [json.dumps(value)]
        except (ValueError, TypeError) as error:  # an alias of itself, a date as a key
            raise UserError(f"{path}: {key} is not a mapping of plain values: {error}") from error
    elif isinstance(value, list):
        if not many:
            raise UserError(f"{path}: {key}: {value} is a list, but one value is expected")
        if not value:
            return []
        words = [str(v) for v in value]
    else:
        words = [str(value)]
    try:
        return getattr(parser.parse_args([f"--{key}", *words]), key)
    except UserError as error:
        raise UserError(f"{path}: {key}: {value}: {str(error).partition(': ')[2] or error}") from error


def _hints_of(parser: TrlParser) -> dict[str, Any]:
    return {key: hint for cls in parser.dataclass_types for key, hint in get_type_hints(cls).items()}


def _optional_keys(parser: TrlParser) -> set[str]:
    """Keys that may be empty: their type admits None."""
    return {key for key, hint in _hints_of(parser).items() if type(None) in get_args(hint)}


def _takes_mapping(parser: TrlParser, key: str) -> bool:
    hint = _hints_of(parser)[key]
    return any(kind is dict or get_origin(kind) is dict for kind in (hint, *get_args(hint)))


def _parse_flags(parser: TrlParser, flags: list[str]) -> dict[str, Any]:
    """The flags that were given, parsed; an unknown one is an error with the nearest key."""
    from argparse import SUPPRESS

    defaults = {a: a.default for a in parser._actions}
    for action in parser._actions:
        action.default = SUPPRESS
    namespace, unknown = parser.parse_known_args(flags)
    for action, default in defaults.items():
        action.default = default
    if unknown:
        name = unknown[0]
        key = name.lstrip("-").partition("=")[0]
        what = f"unknown flag {name}" if name.startswith("--") else f"unexpected argument {name}"
        raise UserError(f"{what}{_hint(parser, key)}")
    return vars(namespace)


def build(values: dict[str, Any], path: str | None, cls: type) -> Any:
    """The dataclass `cls` with those of `values` that are its keys. Raises UserError for what it refuses."""
    names = {field.name for field in fields(cls) if field.init}
    try:
        return cls(**{key: value for key, value in values.items() if key in names})
    except (ValueError, TypeError, ArithmeticError, ImportError, NotImplementedError, OSError) as error:
        raise UserError(f"{path + ': ' if path else ''}{error}") from error


def check_mappings(values: dict[str, Any]) -> None:
    """Raise UserError for text where only a mapping is read."""
    for key, value in values.items():
        if isinstance(value, str) and key in JUST_MAPPINGS:
            raise UserError(f"{key}: {value} is not a mapping: write it as JSON, such as '{{\"key\": 1}}'")
