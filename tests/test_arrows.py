"""The import rules of docs/architecture.md: which package may import which, without cycles."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {"errors", "fs", "terminal"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "fs": {"errors"},
    "terminal": set(),
    "config": LEAVES,
    "batch": {"errors", "config"},
    "data": LEAVES | {"config", "batch"},
    "model": LEAVES | {"config", "batch"},
    "checkpoint": LEAVES | {"config", "model"},
    "tasks": LEAVES | {"config", "batch", "data", "model", "checkpoint"},
    "train": LEAVES | {"config", "batch", "data", "model", "tasks"},
    "report": LEAVES | {"config", "batch", "data", "tasks", "train"},
    "synthetic": LEAVES | {"config", "batch", "data"},
    "serve": LEAVES | {"config", "data", "model", "tasks"},
    "cli": LEAVES | {"config", "data", "model", "checkpoint", "tasks", "train", "report", "synthetic", "serve"},
}
"""Packages and modules of reserve, and those that each may import besides itself."""


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions and for type checkers."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(package: str, folder: str) -> dict[str, Path]:
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


RESERVE = modules("reserve", "reserve")
KERNELS = modules("reserve_kernels", "kernels")


def test_every_package_is_listed():
    packages = {name.split(".")[1] for name in RESERVE if "." in name} - {"__main__"}
    assert packages == ALLOWED.keys()


@pytest.mark.parametrize("name", sorted(name for name in RESERVE if name not in ("reserve", "reserve.__main__")))
def test_a_module_imports_along_the_arrows(name: str) -> None:
    package_name = name.split(".")[1]
    reached = {other.split(".")[1] for other in imports_of(RESERVE[name]) if other.startswith("reserve.")}
    assert reached - {package_name} <= ALLOWED[package_name]


@pytest.mark.parametrize("name", sorted(name for name in RESERVE if name.startswith("reserve.train")))
def test_the_trainer_knows_no_task(name: str) -> None:
    tasks = {other for other in imports_of(RESERVE[name]) if other.startswith("reserve.tasks.")}
    assert all(other.split(".")[2] in ("task", "Task", "find_task") for other in tasks)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_ops_know_nothing_of_the_model(name: str) -> None:
    assert not {other for other in imports_of(KERNELS[name]) if other.split(".")[0] == "reserve"}


def test_imports_have_no_cycles():
    both = {**RESERVE, **KERNELS}
    # Not counted: modules import their own package, whose __init__ imports what it exports.
    graph = {
        name: {o for o in imports_of(path) if o in both and o != name and not name.startswith(f"{o}.")}
        for name, path in both.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError naming the cycle


def test_the_rules_have_no_cycles():
    TopologicalSorter(ALLOWED).prepare()
