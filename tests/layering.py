"""The house rules as functions of source text: layers, fences, cycles, depth and sizes.

Each rule takes `{module name: source}` and returns one line per violation, so that a test can hand
it the repository, and another one sources that are wrong on purpose.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "jaxcompress"
TOP_FOLDERS = (PACKAGE, "experiments", "scripts", "tests")

LAYERS = {
    **dict.fromkeys(("types", "tree", "check", "files", "matrices", "cka"), 0),
    **dict.fromkeys(("models", "tasks", "data"), 1),
    **dict.fromkeys(
        (
            "ablate",
            "circuits",
            "prune",
            "lora",
            "distill",
            "align",
            "narrow",
            "sae",
            "generate",
            "probe",
        ),
        2,
    ),
    **dict.fromkeys(("train", "io", "measure", "report", "config", "runs", "tokenized", "xla"), 3),
    **dict.fromkeys(
        (
            "carried",
            "compare",
            "examples",
            "compress",
            "dictionary",
            "finetune",
            "fitting",
            "gated",
            "judge",
            "learned",
            "mechanism",
            "narrowing",
            "objectives",
            "requirements",
            "commands",
            "cli",
            "__main__",
        ),
        4,
    ),
}
# The package itself re-exports, so it stands above all and nothing inside imports it.
ROOT_LAYER = 5

_WAYS_IN = ("__main__", "cli", "commands")

# What layer 2 may know of the models: their shape and their gates; the forward is passed in.
MODELS_FOR_LAYER_2 = ("models.config", "models.gates")
SIDEWAYS_IN_LAYER_2 = {("circuits", "ablate"), ("align", "ablate")}
APART_IN_LAYER_1 = {
    ("models", "tasks"),
    ("models", "data"),
    ("tasks", "models"),
    ("data", "models"),
}

_FILES = ("io", "data.text")
FENCES: dict[str, tuple[str, ...]] = {
    "flax": ("models",),
    "optax": ("train", "prune.masks", "prune.schedule", "distill.losses", "align.matching"),
    "orbax": ("io",),
    "safetensors": ("io",),
    "transformers": _FILES,
    "tokenizers": _FILES,
    "huggingface_hub": _FILES,
    "matplotlib": ("report",),
    "jinja2": ("report",),
    **dict.fromkeys(("torch", "peft", "transformer_lens", "sae_lens"), ()),
}

MAX_DEPTH = 7
MAX_FILE = {PACKAGE: 400, "scripts": 400, "experiments": 150, "tests": 500}
MAX_FUNCTION = 60
MEDIAN_FILE = 150
MEDIAN_FUNCTION = 12


@dataclasses.dataclass(frozen=True)
class Import:
    """One import: the module that does it, the module that it names, and where."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


Sources = Mapping[str, str]


def read(root: Path) -> dict[str, str]:
    """The sources of a repository by dotted name; a package has the name of its folder.

    `__init__.py` becomes `name.__init__` and is told from a module `name` by that.
    """
    paths = (path for top in TOP_FOLDERS for path in sorted((root / top).rglob("*.py")))
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in paths
    }


def imports(sources: Sources) -> list[Import]:
    """All imports of all modules: at the top, inside functions, under TYPE_CHECKING, by name."""
    return [
        Import(module, _resolve(target, sources), line)
        for module, source in sources.items()
        for target, line in _targets(module, ast.parse(source))
    ]


def _targets(module: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import counts from the folder of the module, for `__init__` too.
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names = [node for node in node.args[:1] if isinstance(node, ast.Constant)]
            yield from ((str(name.value), name.lineno) for name in names)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _resolve(target: str, sources: Sources) -> str:
    """The module that an imported name lives in: `jaxcompress.check` for `….check.fail`."""
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for candidate in (name, f"{name}.__init__"):
            if candidate in sources:
                return candidate
    return target


def _inside(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _part(module: str) -> tuple[str, str]:
    """`jaxcompress.models.gates` is ("models", "models.gates"); the package itself ("", "")."""
    inner = [part for part in module.split(".")[1:] if part != "__init__"]
    return (inner[0] if inner else ""), ".".join(inner)


def _layer(part: str) -> int | None:
    return LAYERS.get(part) if part else ROOT_LAYER


def layers(sources: Sources) -> list[str]:
    """Imports that go up, sideways in layer 2, between models and tasks or data, or out."""
    found = []
    for module in sources:
        top, part = module.split(".")[0], _part(module)[0]
        if top == PACKAGE and _layer(part) is None:
            found.append(f"{module} is in no layer: give {part} one in tests/layering.py")
    for item in imports(sources):
        reason = _why_not(item, sources)
        if reason:
            found.append(f"{item}: {reason}")
    return found


def _why_not(item: Import, sources: Sources) -> str | None:
    top, target_top = item.module.split(".")[0], item.target.split(".")[0]
    if top in ("experiments", "scripts"):
        # A script that runs from its own folder finds its neighbours by their bare name.
        neighbour = f"{top}.{target_top}" in sources
        if target_top in ("experiments", "scripts", "tests") or neighbour:
            return "experiments and scripts import the package only"
    if top != PACKAGE:
        return None
    if target_top in ("experiments", "scripts", "tests"):
        return "the package knows nothing of those who use it"
    return _why_not_inside(item) if target_top == PACKAGE else None


def _why_not_inside(item: Import) -> str | None:
    part, _ = _part(item.module)
    target, target_inner = _part(item.target)
    layer, target_layer = _layer(part), _layer(target)
    if layer is None or target_layer is None:
        return "no such module" if target_layer is None else None
    if target_layer > layer:
        return f"layer {layer} imports layer {target_layer}"
    if (part, target) in APART_IN_LAYER_1:
        return "models and tasks or data do not know each other"
    if layer == 2 and target == "models" and not _inside(target_inner, MODELS_FOR_LAYER_2):
        return f"layer 2 sees models only through {' and '.join(MODELS_FOR_LAYER_2)}"
    sideways = layer == target_layer == 2 and part != target
    if sideways and (part, target) not in SIDEWAYS_IN_LAYER_2:
        return "layer 2 does not import sideways"
    return None


def fences(sources: Sources) -> list[str]:
    """Third-party libraries outside the few places that may know them.

    Tests and scripts compare with anything, so the fences stand around the package and the
    experiments.
    """
    found = []
    for item in imports(sources):
        library = item.target.split(".")[0]
        top, inner = item.module.split(".")[0], _part(item.module)[1]
        allowed = FENCES.get(library)
        if allowed is None or top not in (PACKAGE, "experiments"):
            continue
        if top == "experiments" or not _inside(inner, allowed):
            places = ", ".join(allowed) or "tests and scripts"
            found.append(f"{item}: {library} is for {places} only")
    return found


def undeclared(sources: Sources, distributions: set[str]) -> list[str]:
    """Third-party imports of the package that are not among its dependencies."""
    import_names = {"pyyaml": "yaml", "orbax-checkpoint": "orbax", "scikit-learn": "sklearn"}
    declared = {import_names.get(name, name) for name in distributions}
    known = declared | set(sys.stdlib_module_names) | set(TOP_FOLDERS) | {"__future__"}
    outside = (item for item in imports(sources) if item.module.split(".")[0] == PACKAGE)
    return [
        f"{item}: not a dependency" for item in outside if item.target.split(".")[0] not in known
    ]


def _graph(sources: Sources) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {name: set() for name in sources if name.startswith(PACKAGE)}
    for item in imports(sources):
        if item.module in graph and item.target in graph:
            graph[item.module].add(item.target)
    return graph


def cycles(sources: Sources) -> list[str]:
    """Modules that import themselves on a detour, and sub-packages that import each other."""
    graph = _graph(sources)
    found = []
    for start in graph:
        chain = _path(graph, start, start)
        if chain and start == min(chain):
            found.append(f"cycle: {' -> '.join(chain)}")
    edges = {(_part(a)[0], _part(b)[0]) for a in graph for b in graph[a]}
    mutual = sorted((a, b) for a, b in edges if a < b and (b, a) in edges)
    return found + [f"{a} and {b} import each other" for a, b in mutual]


def _path(graph: Mapping[str, set[str]], start: str, goal: str) -> list[str] | None:
    """A shortest chain of one or more imports from `start` to `goal`."""
    chains, seen = [[start]], set()
    while chains:
        chain = chains.pop(0)
        for target in sorted(graph[chain[-1]]):
            if target == goal:
                return [*chain, target]
            if target not in seen:
                seen.add(target)
                chains.append([*chain, target])
    return None


def deepest(sources: Sources) -> list[str]:
    """The longest chain of imports, without the `__init__` files that only re-export."""
    graph = _graph(sources)

    @functools.cache
    def below(module: str) -> tuple[str, ...]:
        longest = max((below(target) for target in sorted(graph[module])), key=len, default=())
        return longest if module.endswith("__init__") else (module, *longest)

    # The process's ways in are no steps of the structure: nothing below can import them.
    modules = [module for module in graph if module.split(".")[-1] not in _WAYS_IN]
    return list(max((below(module) for module in modules), key=len, default=()))


def depth(sources: Sources) -> list[str]:
    """Chains of more than `MAX_DEPTH` imports, that is of more than one module more."""
    if cycles(sources):
        return ["no depth: there are cycles"]
    chain = deepest(sources)
    steps = len(chain) - 1
    return [f"{steps} imports deep: {' -> '.join(chain)}"] if steps > MAX_DEPTH else []


def functions(source: str) -> list[tuple[str, int, int]]:
    """(name, line, lines without docstring) of every function, nested ones too."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [(node.name, node.lineno, _lines(node)) for node in nodes]


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    doc = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - doc


def sizes(sources: Sources) -> list[str]:
    """Files and functions that are too long."""
    found = []
    for module, source in sources.items():
        length, limit = len(source.splitlines()), MAX_FILE[module.split(".")[0]]
        if length > limit:
            found.append(f"{module}: {length} lines, at most {limit}")
        for name, line, lines in functions(source):
            if lines > MAX_FUNCTION:
                found.append(f"{module}:{line} {name}: {lines} lines, at most {MAX_FUNCTION}")
    return found


def medians(sources: Sources) -> list[str]:
    """Medians over the files and the functions of the package that are too high."""
    package = {name: text for name, text in sources.items() if name.startswith(PACKAGE)}
    modules = [text for name, text in package.items() if not name.endswith("__init__")]
    file_median = statistics.median([len(text.splitlines()) for text in modules] or [0])
    lengths = [lines for text in package.values() for _, _, lines in functions(text)]
    function_median = statistics.median(lengths or [0])
    found = []
    if file_median > MEDIAN_FILE:
        found.append(f"median file: {file_median} lines, at most {MEDIAN_FILE}")
    if function_median > MEDIAN_FUNCTION:
        found.append(f"median function: {function_median} lines, at most {MEDIAN_FUNCTION}")
    return found
