"""The examples of pages and docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
from pathlib import Path
from unittest import mock

import pytest
from docstrings import indented_blocks

from reserve_kernels.registry import OPS
from tests.docs.pages import ROOT, code_blocks

# The API reference repeats docstrings, whose examples are run below.
BLOCKS = [block for block in code_blocks("python") if block.page.name != "api.md"]
SOURCES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for package, folder in (("reserve", "reserve"), ("reserve_kernels", "kernels"))
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def docstrings(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    documented = [n for n in nodes if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    return [text for node in documented if (text := ast.get_docstring(node)) is not None]


WITH_EXAMPLES = [name for name, path in SOURCES.items() if any(">>>" in text for text in docstrings(path))]


def test_there_are_examples_of_every_op():
    text = "".join(block.code for block in BLOCKS if block.page.name == "ops.md")
    for name in [*(op.name for op in OPS), "backends"]:
        assert f"{name}(" in text


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.not_run is None], ids=lambda block: block.name)
def test_example_of_a_page_runs(block):
    with mock.patch.dict(os.environ):
        exec(compile(block.code, block.name, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.not_run is not None], ids=lambda block: block.name)
def test_example_that_is_not_run_compiles_and_its_imports_exist(block):
    compile(block.code, block.name, "exec")
    imports = [node for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec("\n".join(map(ast.unparse, imports)), {"__name__": "example"})


def test_both_packages_have_an_example_at_the_top():
    assert {"reserve", "reserve_kernels"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_module_run(name):
    module = importlib.import_module(name)
    results = [
        doctest.DocTestRunner().run(test) for test in doctest.DocTestFinder().find(module, name) if test.examples
    ]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_code_in_docstrings_can_be_run():
    """Python that a docstring shows begins with >>>, so that the test above finds it."""
    blocks = [
        (name, block) for name, path in SOURCES.items() for text in docstrings(path) for block in indented_blocks(text)
    ]
    assert [(name, block) for name, block in blocks if not block.startswith(">>>") and is_python(block)] == []


def is_python(text: str) -> bool:
    """Whether a text does something as Python: it imports, calls or assigns."""
    try:
        statements = ast.walk(ast.parse(text))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.Call | ast.Assign) for node in statements)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from reserve_kernels import backends", True),
        ("backends()", True),
        ("python -m reserve_kernels.attention.tune", False),
        ("a.vtt", False),
    ],
)
def test_python_is_recognised(text, expected):
    assert is_python(text) == expected
