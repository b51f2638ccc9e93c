"""Configs: YAML values into a frozen dataclass, with a quick overlay and dotted overrides.

A config file holds values only. The dataclass of the experiment says which keys there are, of which
type, and with which defaults; pydantic checks it, strictly: an unknown key, or text where a number
belongs, is a `ValueError` that names the dotted key.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import tyro
import yaml

from jaxcompress import check

__all__ = ["described", "from_args", "from_dict", "load", "to_dict", "to_yaml"]

Config = TypeVar("Config")

QUICK = "quick"

_OCTAL_OR_SEXAGESIMAL = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number; YAML 1.1 wants `1.0e-4` and makes it text.

    Numbers are decimal: `010` and `1:30` are text, not 8 and 90. A key stands once in a mapping.
    There are no aliases, so that a glob can begin with its star.
    """

    fetch_alias = yaml.SafeLoader.fetch_plain

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        old = kind is yaml.ScalarNode and implicit[0] and _OCTAL_OR_SEXAGESIMAL.fullmatch(value)
        return "tag:yaml.org,2002:str" if old else super().resolve(kind, value, implicit)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), []
        for key, _ in node.value:
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r} twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.append((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """The same in the other direction: the text "1e-4" is quoted, so that it stays text."""


for _end in (_Loader, _Dumper):
    _end.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def load(
    cls: type[Config],
    path: str | Path | None = None,
    *,
    quick: bool = False,
    overrides: Sequence[str] = (),
) -> Config:
    """A config from the defaults of `cls`, a file, its quick overlay and overrides, in this order.

    Args:
      cls: a frozen dataclass; its fields may be dataclasses again.
      path: a YAML file of values, with an optional `quick:` mapping of the values that make the
        experiment take seconds; `None` for the defaults alone.
      quick: whether to apply that overlay; a file without one is then refused.
      overrides: `dotted.key=value`, each value in YAML.

    Returns:
      An instance of `cls`, checked.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      ...     rate: float = 1e-3
      >>> load(Train, overrides=["rate=3e-4"])
      Train(steps=100, rate=0.0003)
      >>> load(Train, overrides=["stps=5"])
      Traceback (most recent call last):
      ...
      ValueError: stps: expected a key of Train, got an unknown one. did you mean 'steps'?
    """
    values = _read(path) if path is not None else {}
    overlay = values.pop(QUICK, None)
    if quick:
        if not isinstance(overlay, Mapping):
            raise check.fail(f"{path or cls.__name__}", "a quick: overlay", repr(overlay))
        values = _merge(values, overlay)
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return from_dict(cls, values)


def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """A config from nested plain values; what they leave out keeps its default.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      >>> from_dict(Train, {"steps": "many"})
      Traceback (most recent call last):
      ...
      ValueError: steps: expected a valid integer, got 'many'
    """
    merged = _with_defaults(cls, values)
    _refuse_unplain(merged)
    try:
        # As JSON, because strict there still takes a list for a tuple and text for a path.
        text = json.dumps(merged, default=str)
        return _adapter(cls).validate_json(text, strict=True, extra="forbid")
    except pydantic.ValidationError as error:
        raise _explain(cls, merged, error) from None


def to_dict(config: Any) -> dict[str, Any]:
    """The values of a config as plain, nested YAML types; `from_dict` is its inverse.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     tasks: tuple[str, ...] = ("ioi",)
      >>> to_dict(Train())
      {'tasks': ['ioi']}
    """
    _fields(type(config))
    return _adapter(type(config)).dump_python(config, mode="json")


def to_yaml(config: Any) -> str:
    r"""The values of a config as YAML text, in the order of its fields; `load` reads it back.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      >>> to_yaml(Train())
      'steps: 100\n'
    """
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def described(cls: type) -> str:
    """The settings that a config has, a line each, for the help of a command.

    Args:
      cls: a dataclass whose docstring has a line for every attribute.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     '''How to train.
      ...
      ...     Attributes:
      ...       steps: updates.
      ...     '''
      ...     steps: int = 100
      >>> described(Train)
      'steps=100: updates.'
    """
    return "\n".join(_described(cls, from_dict(cls, {}), ""))


def _described(cls: type, values: Any, prefix: str) -> list[str]:
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    about: dict[str, str] = {}
    for match in re.finditer(r"^  (\w+): ((?:.+\n?)(?:    .+\n?)*)", text, re.MULTILINE):
        about[match[1]] = " ".join(match[2].split())
    lines = []
    for field in _fields(cls):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            lines += _described(type(value), value, f"{prefix}{field.name}.")
        else:
            plain = json.dumps(value, default=list).replace('"', "")
            lines.append(f"{prefix}{field.name}={plain}: {about.get(field.name, '')}")
    return lines


def from_args(
    cls: type[Config], path: str | Path | None = None, *, args: Sequence[str] | None = None
) -> Config:
    """A config from the command line: `[--config FILE] [--quick] [dotted.key=value ...]`.

    Args:
      cls: the dataclass of the experiment.
      path: the file that is read if the command line names none.
      args: the arguments, by default those of the process.

    Returns:
      An instance of `cls`, checked.

    Raises:
      ValueError: as `load`, if `args` are given; those of the process end it with one line and
        status 2.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      >>> from_args(Train, args=["steps=3"])
      Train(steps=3)
    """
    default = _Command(config=None if path is None else Path(path))
    names = ", ".join(field.name for field in _fields(cls))
    about = f"Overrides are key=value, with dots for nested keys. Keys: {names}."
    command = tyro.cli(_Command, default=default, args=args, description=about)
    try:
        return load(cls, command.config, quick=command.quick, overrides=command.overrides)
    except (ValueError, OSError) as error:
        if args is not None:
            raise
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@dataclasses.dataclass(frozen=True)
class _Command:
    overrides: tyro.conf.Positional[tuple[str, ...]] = ()
    config: Path | None = None
    quick: bool = False


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise check.fail("config", "a YAML file", f"no file {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise check.fail(str(path), "YAML", " ".join(str(error).split())) from None
    if values is not None and not isinstance(values, dict):
        raise check.fail(str(path), "a mapping of keys to values", type(values).__name__)
    return values or {}


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise check.fail("override", "dotted.key=value", repr(text))
    try:
        nested = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise check.fail(key, "a value in YAML", " ".join(str(error).split())) from None
    for part in reversed(parts):
        nested = {part: nested}
    return nested


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `overlay`; where both have a mapping, key by key."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_defaults(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values over those defaults that are dataclasses: giving one key keeps the others."""
    hints = typing.get_type_hints(cls)
    filled = dict(values)
    for field in _fields(cls):
        given = values.get(field.name, {})
        if not isinstance(given, Mapping):
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if dataclasses.is_dataclass(default):
            filled[field.name] = _merge(to_dict(default), given)
        elif dataclasses.is_dataclass(hints[field.name]) and field.name in values:
            filled[field.name] = _with_defaults(hints[field.name], given)
    return filled


def _refuse_unplain(value: Any, key: str = "") -> None:
    """Raises for the first number that is not finite, and for a set or bytes, by their key."""
    if isinstance(value, set | bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise check.fail(key, "a finite number, text, a list or a mapping", repr(value))
    items = value.items() if isinstance(value, Mapping) else ()
    for name, item in enumerate(value) if isinstance(value, list | tuple) else items:
        _refuse_unplain(item, f"{key}.{name}" if key else str(name))


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(cls):
        raise check.fail("config class", "a dataclass", getattr(cls, "__name__", repr(cls)))
    return dataclasses.fields(cls)


@functools.cache
def _adapter(cls: Any) -> Any:
    return pydantic.TypeAdapter(cls)


def _explain(cls: type, values: Any, error: pydantic.ValidationError) -> ValueError:
    """One line for the first thing that is wrong; a misspelt key before the one it left missing."""
    errors = error.errors(include_url=False)
    unknown = [item for item in errors if item["type"] == "unexpected_keyword_argument"]
    first = (unknown or errors)[0]
    loc = _in_values(first["loc"], values)
    key = ".".join(str(part) for part in loc)
    if unknown:
        owner = _owner(cls, loc)
        names = [field.name for field in _fields(owner)]
        hint = check.nearest(str(loc[-1]), names)
        return check.fail(key, f"a key of {owner.__name__}", "an unknown one", hint)
    if first["type"] == "missing":
        key = ".".join(str(part) for part in first["loc"])
        return check.fail(key, "a value", "none, and it has no default")
    branches = [item for item in errors if _in_values(item["loc"], values) == loc]
    messages = [item["msg"].removeprefix("Input should be ") for item in branches]
    return check.fail(key or cls.__name__, " or ".join(messages), repr(first["input"]))


def _in_values(loc: Sequence[int | str], values: Any) -> list[int | str]:
    """The start of `loc` that leads through the values; pydantic appends the branch of a union."""
    found: list[int | str] = []
    for part in loc:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
        found.append(part)
    return found


def _owner(cls: type, loc: Sequence[int | str]) -> Any:
    """The dataclass that the last key of `loc` was given to."""
    owner: Any = cls
    for part in loc[:-1]:
        if isinstance(part, str):
            inner = _dataclass_in(typing.get_type_hints(owner).get(part))
            owner = inner or owner
    return owner


def _dataclass_in(annotation: Any) -> Any:
    """The first dataclass in an annotation such as `tuple[Train, ...] | None`."""
    if dataclasses.is_dataclass(annotation):
        return annotation
    found = (_dataclass_in(argument) for argument in typing.get_args(annotation))
    return next((inner for inner in found if inner is not None), None)
