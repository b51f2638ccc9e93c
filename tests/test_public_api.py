"""Every public name is listed, documented, typed and, if it is a function, shown in an example.

The examples themselves run as doctests: pytest collects the package with `--doctest-modules`.
"""

from __future__ import annotations

import importlib
import inspect
import tomllib
import types

import pytest

from tests import layering
from tests.conftest import ROOT

MODULES = sorted(
    name.removesuffix(".__init__")
    for name in layering.read(ROOT)
    if name.startswith(layering.PACKAGE) and not name.endswith("__main__")
)

# Functions whose example would need a page of set-up; each is shown at work by the tests instead.
NO_EXAMPLE: set[str] = set()


def problems(module: types.ModuleType) -> list[str]:
    """What is missing from the public names that are defined in a module."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        return [f"{module.__name__} has no __all__"]
    found = [f"{module.__name__}.{name} is listed twice" for name in _twice(listed)]
    for name in listed:
        where = f"{module.__name__}.{name}"
        thing = getattr(module, name, None)
        if not hasattr(module, name):
            found.append(f"{where} is listed but not there")
        elif getattr(thing, "__module__", None) != module.__name__:
            continue  # A constant, or a name that another module defines and answers for.
        elif inspect.isclass(thing):
            found += _documented(where, thing, example=False)
            for method, value in vars(thing).items():
                if not method.startswith("_"):
                    found += _annotated(f"{where}.{method}", getattr(value, "__func__", value))
        elif callable(thing):
            found += _documented(where, thing, example=where not in NO_EXAMPLE)
            found += _annotated(where, thing)
    return found


def _twice(names):
    return sorted({name for name in names if list(names).count(name) > 1})


def _documented(where, thing, *, example):
    text = inspect.getdoc(thing) or ""
    if not text.strip():
        return [f"{where} has no docstring"]
    if example and ">>>" not in text:
        return [f"{where} has no example"]
    return []


def _annotated(where, thing):
    function = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
    if not inspect.isfunction(function):
        return []
    signature = inspect.signature(function)
    bare = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is inspect.Parameter.empty and name not in ("self", "cls")
    ]
    if signature.return_annotation is inspect.Signature.empty:
        bare.append("return")
    return [f"{where}: {name} has no annotation" for name in bare]


def test_the_package_is_found():
    assert {"jaxcompress", "jaxcompress.check", "jaxcompress.models"} <= set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if name != layering.PACKAGE])
def test_public_names(name):
    assert problems(importlib.import_module(name)) == []


def test_the_package_lists_what_it_offers():
    package = importlib.import_module(layering.PACKAGE)
    assert package.__doc__
    assert [name for name in getattr(package, "__all__", []) if not hasattr(package, name)] == []


def test_exemptions_are_needed():
    for where in NO_EXAMPLE:
        module, _, name = where.rpartition(".")
        text = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
        assert ">>>" not in text, f"{where} has an example: take it off the list"


def test_examples_are_run():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"]
    assert "jaxcompress" in options["testpaths"]


GOOD = '''
import functools
__all__ = ["LIMIT", "Thing", "partial", "scale"]
LIMIT = 3
partial = functools.partial(int, base=2)
class Thing:
    """A thing."""
    def grow(self, by: int) -> int: ...
    @property
    def size(self) -> int: ...
    def _private(self, x): ...
def scale(x: "Float[Array, 'b']", *rest: int, by: float = 1.0, **more: int) -> int:
    """Scales.

    Example:
      >>> 1
    """
def _hidden(x): ...
'''

WRONG = {
    "no __all__": ("__all__ = ", "names = ", ["m has no __all__"]),
    "not there": ('"scale"]', '"scale", "scala"]', ["m.scala is listed but not there"]),
    "twice": ('"scale"]', '"scale", "LIMIT"]', ["m.LIMIT is listed twice"]),
    "no docstring": ('"""A thing."""', "", ["m.Thing has no docstring"]),
    "no example": (">>> 1", "", ["m.scale has no example"]),
    "bare parameter": ("by: float = 1.0", "by=1.0", ["m.scale: by has no annotation"]),
    "bare rest": ("*rest: int", "*rest", ["m.scale: rest has no annotation"]),
    "bare return": (
        "**more: int) -> int:",
        "**more: int):",
        ["m.scale: return has no annotation"],
    ),
    "bare method": ("by: int) -> int", "by) -> int", ["m.Thing.grow: by has no annotation"]),
    "bare property": ("def size(self) -> int", "def size(self)", ["m.Thing.size: return has no"]),
}


def _module(source: str) -> types.ModuleType:
    module = types.ModuleType("m")
    exec(source, vars(module))
    return module


def test_a_good_module_passes():
    assert problems(_module(GOOD)) == []


@pytest.mark.parametrize("case", WRONG)
def test_wrong_modules_are_seen(case):
    before, after, expected = WRONG[case]
    assert before in GOOD
    found = problems(_module(GOOD.replace(before, after)))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
