"""Every op is in the table and has the same files, and everything that the table points to exists."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

import reserve_kernels
from benchmarks.report.resources import TABLES
from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.registry import FURNITURE, OPS, Op

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels"
BUILT_ON_OPS = {"bench", "compat"}
"""Packages that are no ops."""
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.folder)


def missing(op: Op, root: Path) -> list[str]:
    """Files that the table promises for `op` and that are not under `root`."""
    wanted = [f"kernels/{op.folder}/{name}" for name in FURNITURE]
    wanted += [f"docs/kernels/{op.folder}.md", f"benchmarks/{op.benchmark}.py"]
    wanted += [f"tests/kernels/test_{op.folder}.py", f"tests/kernels/test_{op.folder}_cuda.py"]
    if op.native:
        wanted += [f"csrc/{op.folder}/{op.folder}_cpu.cpp", f"csrc/fuzz/{op.folder}_fuzz.cpp"]
        wanted += [f"kernels/{op.folder}/native.py"]
    if op.native_cuda:
        wanted += [f"csrc/{op.folder}/{op.folder}_{kind}" for kind in ("cuda.cu", "emulated.cpp")]
    if op.triton:
        wanted += [f"kernels/{op.folder}/triton.py", f"tests/kernels/triton_cases/{op.folder}.py"]
        wanted += [f"tests/kernels/interpreted/test_{op.folder}.py"]
    return [name for name in wanted if not (root / name).is_file()]


@every_op
def test_what_the_table_points_to_exists(op):
    found = missing(op, ROOT)
    # A message of its own: pytest abbreviates the comparison of two lists to their first difference.
    assert not found, f"missing: {', '.join(found)}"


def test_what_is_missing_is_named(tmp_path):
    op = Op("an_op", "op", benchmark="op", gpu_share=1, native=True, native_cuda=True, triton=True)
    (tmp_path / "kernels" / "op").mkdir(parents=True)
    for name in FURNITURE[1:]:
        (tmp_path / "kernels" / "op" / name).touch()
    found = missing(op, tmp_path)
    assert found[0] == "kernels/op/__init__.py"
    assert "kernels/op/ops.py" not in found
    assert {
        "benchmarks/op.py",
        "csrc/fuzz/op_fuzz.cpp",
        "csrc/op/op_cuda.cu",
        "tests/kernels/triton_cases/op.py",
    } <= set(found)


def test_every_folder_is_an_op_of_the_table():
    folders = {path.name for path in KERNELS.iterdir() if any(path.glob("*.py"))}
    assert folders - BUILT_ON_OPS == {op.folder for op in OPS}


@pytest.mark.parametrize(
    ("place", "pattern", "kind"),
    [
        ("csrc/fuzz", "(.*)_fuzz.cpp", "native"),
        ("csrc", r"(.*)/\1_cuda.cu", "native_cuda"),
        ("kernels", "(.*)/native.py", "native"),
        ("kernels", "(.*)/triton.py", "triton"),
        ("tests/kernels/triton_cases", "(?!__init__)(.*).py", "triton"),
        ("tests/kernels/interpreted", "test_(?!interpreter|attention_sizes)(.*).py", "triton"),
    ],
)
def test_what_exists_is_in_the_table(place, pattern, kind):
    names = (path.relative_to(ROOT / place).as_posix() for path in (ROOT / place).rglob("*.*"))
    found = {match.group(1) for name in names if (match := re.fullmatch(pattern, name))}
    assert found == {op.folder for op in OPS if getattr(op, kind)}


def test_resource_tables_have_every_op():
    kinds = {"cuda_resources.json": "native_cuda", "triton_resources/*.json": "triton"}
    for pattern, kind in kinds.items():
        files = list(TABLES.glob(pattern))
        assert files
        for file in files:
            table = json.loads(file.read_text("utf-8"))
            assert table["kernels"].keys() == {op.folder for op in OPS if getattr(op, kind)}, file.name


def test_every_op_is_public():
    # setup.py finds packages by their __init__.py, which FURNITURE asks of every op.
    assert {op.name for op in OPS} <= set(reserve_kernels.__all__)


@every_op
def test_back_ends_belong_to_the_op_and_the_last_runs_anywhere(op):
    names = [backend.name for backend in op.backends]
    assert op.backends.op == op.name
    assert len(set(names)) == len(names)
    assert names[-1] == "reference"
    *_, last = op.backends
    assert last.unavailable is runs_anywhere
    assert importlib.import_module(f"reserve_kernels.{op.folder}").__doc__.startswith(f"{op.name}:")


@every_op
def test_pages_of_the_op_show_it(op):
    own = ROOT / "docs" / "kernels" / f"{op.folder}.md"
    for page, lines in (
        (own, [f"<!-- figures: figures of {op.name} -->"]),
        (ROOT / "docs" / "ops.md", [f"## {op.name}"]),
    ):
        present = page.read_text("utf-8").splitlines() if page.is_file() else []
        absent = [line for line in lines if line not in present]
        assert not absent, f"{page.relative_to(ROOT)} lacks the lines {absent}"


CPU = torch.device("cpu")
TABLE = Backends(
    "an_op",
    Backend("fast", lambda device, dtype: "it needs float16" if dtype != torch.float16 else None),
    Backend("good", runs_anywhere),
    Backend("reference", runs_anywhere),
)


def test_auto_picks_the_first_that_can_run():
    assert TABLE.choose("auto", CPU, torch.float16).name == "fast"
    assert TABLE.choose("auto", CPU, torch.float32).name == "good"
    refuse = {"good": "no such n", "fast": None, "reference": None}
    assert TABLE.choose("auto", CPU, torch.float32, lambda backend: refuse[backend.name]).name == "reference"


def test_a_named_back_end_runs_or_says_why_not():
    assert TABLE.choose("reference", CPU, torch.float32).name == "reference"
    with pytest.raises(RuntimeError, match=r"backend 'fast' cannot run on cpu with torch\.float32: it needs float16"):
        TABLE.choose("fast", CPU, torch.float32)
    with pytest.raises(RuntimeError, match="an_op: backend 'good' cannot run: no such n"):
        TABLE.choose("good", CPU, torch.float32, lambda backend: "no such n")
    with pytest.raises(
        ValueError, match="an_op: backend must be 'auto' or one of 'fast', 'good', 'reference'; got 'x'"
    ):
        TABLE.choose("x", CPU, torch.float32)
