"""The house rules that a machine can check: who imports whom, sizes, words that stay out, and nothing undocumented.

The rules are explained in docs/why/layers.md.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer

from vivavoce.config import Settings

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vivavoce"
REFERENCE = ROOT / "docs" / "reference"

WORDS = ("errors", "model", "events", "plugins")
"""The shared vocabulary; each may import those to its left."""

LAYERS = {
    **{word: frozenset(WORDS[:index]) for index, word in enumerate(WORDS)},
    "config": frozenset({"errors", "model"}),
    "speech": frozenset({"errors", "model", "events"}),
    "wire": frozenset({"errors", "model", "events"}),
    "pronounce": frozenset(),
    "engines": frozenset({*WORDS, "pronounce"}),
    "addons": frozenset({*WORDS, "pronounce"}),
    "stores": frozenset(WORDS),
    "testing": frozenset(WORDS),
    "bench": frozenset({*WORDS, "config", "speech", "runtime"}),
    "runtime": frozenset({*WORDS, "config", "speech"}),
    "reception": frozenset({*WORDS, "config", "wire", "runtime"}),
    "api": frozenset({*WORDS, "config", "speech", "wire", "runtime", "reception"}),
    "bridges": frozenset({*WORDS, "config", "speech", "wire", "runtime", "reception"}),
}
"""What each part may import besides itself; a part that is not listed (the command line) imports anything, and nothing
listed imports it.
"""

IMPURE = {"asyncio", "time", "random", "socket", "threading", "logging"}
"""Modules that the pure packages `speech` and `wire` do without."""

FILE_LINES = 700
BODY_LINES = 60

OUTSIDE_WORDS = [
    "".join(parts)
    for parts in [
        ("pypi", ".org"),
        ("python", "hosted"),
        ("npmjs", ".org"),
        ("npmjs", ".com"),
        ("/work", "/main"),
        ("/work", "/shared"),
        ("..", "/shared"),
        ("/tmp", "/lab"),
        ("/opt", "/pypi"),
        ("/opt", "/wheels"),
        (".lib", "rary/"),
    ]
]
"""Package hosts and places of one machine, in pieces so that this file does not hold them."""

SAME_PROJECT = {"starlette": "fastapi", "pydantic_core": "pydantic"}
"""Imports that come with another distribution for good."""

NO_MESSAGES = {"general", "bullet_points", "concise"}
"""Values of `type` in `wire` that are no types of messages: kinds of summary."""


@cache
def modules() -> dict[str, ast.Module]:
    """Give the parsed modules by dotted name without the leading package: `speech.audio`, `wire` for its `__init__`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Give every absolute name a module imports, wherever in it; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(tree: ast.Module) -> set[str]:
    """Give the modules of this package that a module imports."""
    found = set()
    for name in imported(tree):
        package, _, rest = name.partition(".")
        if package != "vivavoce":
            continue
        while rest and rest not in modules():
            rest = rest.rpartition(".")[0]
        found.add(rest)
    return found


def part(module: str) -> str:
    """Give the layer a module belongs to."""
    return module.partition(".")[0]


def tracked_files() -> list[Path]:
    """Give the files that are in version control or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_only_what_its_layer_may(module):
    """Arrows between layers point one way, so that each layer can be read and tested without those above it."""
    if part(module) not in LAYERS:
        return
    allowed = LAYERS[part(module)] | {part(module), ""}
    assert {part(name) for name in own_modules(modules()[module])} <= allowed


@pytest.mark.parametrize("module", sorted(name for name in modules() if part(name) in {"speech", "wire"}))
def test_the_pure_packages_know_no_clock_no_task_and_no_socket(module):
    """`speech` and `wire` are functions of what they are fed."""
    assert {part(name) for name in imported(modules()[module])} & IMPURE == set()


def test_imports_make_no_cycle():
    """Modules can be put in an order in which each imports only earlier ones."""
    graph = {name: own_modules(tree) - {name, ""} for name, tree in modules().items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_third_party_import_is_a_declared_dependency():
    """Nothing works only because a dependency of a dependency happens to be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + [extra for group in extras(project) for extra in group]
    known = {canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in declared}
    distributions = packages_distributions()
    missing = set()
    for tree in modules().values():
        for top in {part(name) for name in imported(tree)} - sys.stdlib_module_names - {"vivavoce"}:
            providers = {canonical(name) for name in distributions.get(SAME_PROJECT.get(top, top), [top])}
            if not providers & known:
                missing.add(top)
    assert missing == set()


def extras(project: dict) -> list[list[str]]:
    """Give the requirements of each optional extra."""
    return list(project.get("optional-dependencies", {}).values())


def canonical(distribution: str) -> str:
    """Give a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def is_table(statement: ast.stmt) -> bool:
    """Tell whether a statement only states a literal table, or a class only declares fields."""
    if isinstance(statement, ast.ClassDef):
        return all(isinstance(inner, ast.AnnAssign | ast.Expr) for inner in statement.body)
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return):
        return False
    return isinstance(statement.value, ast.Dict | ast.List | ast.Set | ast.Tuple)


def lines(statements: list[ast.stmt]) -> int:
    """Count the lines from the first statement to the last, without tables and a docstring."""
    if not statements:
        return 0
    skipped = [statement for statement in statements if is_table(statement)]
    first = statements[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        skipped.append(first)
    span = (statements[-1].end_lineno or 0) - first.lineno + 1
    return span - sum((node.end_lineno or 0) - node.lineno + 1 for node in skipped)


@pytest.mark.parametrize("module", sorted(modules()))
def test_files_and_functions_stay_short(module):
    """A file is read in one sitting and a function on one screen; tables may be longer."""
    tree = modules()[module]
    assert lines(tree.body) <= FILE_LINES
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if part(module) == "stores" and "migrations" in module:
        return  # a migration is a table written as calls
    assert {node.name: lines(node.body) for node in functions if lines(node.body) > BODY_LINES} == {}


def test_no_file_names_one_machine_or_a_package_host():
    """What is committed works anywhere: no registry's address, no path of the machine it was written on."""
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace").lower()
        found += [f"{path.relative_to(ROOT)}: {word}" for word in OUTSIDE_WORDS if word in text]
    assert found == []


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_documented(field):
    """Each setting stands in the reference under its three spellings."""
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    option = f"--{field.replace('_', '-')}"
    for spelling in (f"`{field}`", f"`{option}`", f"`VIVAVOCE_{field.upper()}`"):
        assert spelling in text


def commands() -> dict[str, set[str]]:
    """Give the options of the program's commands, by what a user types after `vivavoce`; not those of `Settings`."""
    from vivavoce.cli import app  # noqa: PLC0415 - collecting the other tests does not need the program

    settings = {f"--{field.replace('_', '-')}" for field in Settings.model_fields}
    found = {}
    pending = [((), typer.main.get_command(app))]
    while pending:
        path, command = pending.pop()
        if inner := getattr(command, "commands", None):
            pending += [((*path, name), child) for name, child in inner.items()]
            continue
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        names = {name for parameter in shown for name in parameter.opts if name.startswith("--")}
        found[" ".join(path)] = names - settings
    return found


def test_every_command_and_its_options_are_documented():
    """Each command has a heading in the reference, and each of its options stands below that heading."""
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `vivavoce ([a-z -]+)`$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(commands())
    for name, options in commands().items():
        assert {option for option in options if f"`{option}" not in sections[name]} == set(), name


def message_types() -> set[str]:
    """Give the values of `type` that `wire` reads or writes."""
    found = set()
    for name, tree in modules().items():
        if part(name) != "wire":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                values = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "type"]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "type":
                values = [inner for inner in ast.walk(node.annotation) if isinstance(inner, ast.Constant)]
            elif isinstance(node, ast.keyword) and node.arg == "type":
                values = [node.value]
            else:
                continue
            found |= {
                value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
            }
    return found - NO_MESSAGES


def test_every_message_type_is_documented():
    """Each type of message that goes over a wire stands in the reference."""
    text = (REFERENCE / "messages.md").read_text(encoding="utf-8")
    assert message_types(), "no message types found: this test looks in the wrong place"
    assert {name for name in message_types() if f"`{name}`" not in text} == set()
