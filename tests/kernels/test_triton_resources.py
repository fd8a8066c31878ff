from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)

import triton
import triton.language as tl

from tests.kernels.triton_report import (
    ARCHITECTURES,
    SERIALIZED,
    TENSOR_CORE,
    Case,
    Numbers,
    cases,
    code_digest,
    compile_case,
    compile_kind,
    compiled_by,
    ops,
    problems,
    table_file,
)
from tests.kernels.triton_versions import IN_CI, VERSIONS, here, missing

every_op = pytest.mark.parametrize("op", ops())
every_version = pytest.mark.parametrize("version", VERSIONS)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
# One architecture in the quick tests: the digests below show whether the tables hold for the others.
quick_on_one = pytest.mark.parametrize(
    "architecture", [pytest.param(a, marks=[pytest.mark.slow] * (a != 90)) for a in ARCHITECTURES]
)


def stack_bytes(version: str, architecture: int, case: Case) -> int:
    """What a kernel may spill.

    Tiles are chosen so that the version of CI spills nothing, and none does on sm_90, where the GPUs are that we have
    had. Elsewhere Triton 3.6 spills up to 16 bytes in some cases: four registers, which cost less than a smaller tile.
    A limit on registers, for a second block a multiprocessor, may cost as much with either version.
    """
    return 16 if case.max_registers or (version != IN_CI and architecture != 90) else 0


def stored(version: str) -> dict[str, Any]:
    """The table of a version."""
    table: dict[str, Any] = json.loads(table_file(version).read_text("utf-8"))
    return table


def check(version: str, architecture: int, compiled: dict[str, Numbers]) -> None:
    """Compares what a version compiled, by op, with its table, and with what a kernel should be."""
    wrong = {
        f"{op}: {case.name}": found
        for op, reports in compiled.items()
        for case in cases(op, architecture)
        if case.name in reports
        and (found := problems(case, architecture, reports[case.name], stack_bytes(version, architecture, case)))
    }
    assert not wrong
    if version not in VERSIONS:
        pytest.skip(f"there are tables for triton {' and '.join(VERSIONS)}; this is {version}")
    for op, reports in compiled.items():
        table = stored(version)["kernels"][op][f"sm_{architecture}"]
        assert reports == {name: table.get(name) for name in reports}, (
            "run make triton-resources and look at the change"
        )


@quick_on_one
@every_op
def test_the_models_kernels_neither_spill_nor_change_unseen(op, architecture):
    check(here(), architecture, compile_kind("quick", architecture, [op]))


@pytest.mark.slow
@every_architecture
@every_op
def test_the_other_kernels_neither_spill_nor_change_unseen(op, architecture):
    check(here(), architecture, compile_kind("others", architecture, [op]))


beside = pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=pytest.mark.skipif(missing(version) is not None, reason=str(missing(version))))
        for version in VERSIONS
        if version != here()
    ],
)
"""The versions that a process of its own must import."""


@quick_on_one
@beside
def test_other_versions_compile_the_models_kernels_as_their_tables_say(version, architecture):
    """All ops in one process: starting it takes as long as compiling some kernels."""
    check(version, architecture, compiled_by(version, ops(), architecture, "quick"))


@pytest.mark.slow
@every_architecture
@every_op
@beside
def test_other_versions_compile_the_other_kernels_as_their_tables_say(version, op, architecture):
    check(version, architecture, compiled_by(version, [op], architecture, "others"))


@every_op
@every_version
def test_the_table_has_every_case_and_no_other(version, op):
    table = stored(version)["kernels"][op]
    assert set(table) == {f"sm_{architecture}" for architecture in ARCHITECTURES}
    for architecture in ARCHITECTURES:
        assert set(table[f"sm_{architecture}"]) == {case.name for case in cases(op, architecture)}


@every_op
@every_version
def test_the_table_is_of_the_kernels_as_they_are(version, op):
    """Every case, also those that only the slow tests compile."""
    assert stored(version)["code"].get(op) == code_digest(op), f"run python -m tests.kernels.triton_report {op}"


@every_op
@every_version
def test_nothing_in_the_table_spills_lacks_its_instruction_or_is_serialized(version, op):
    table = stored(version)["kernels"][op]
    wrong = {
        f"sm_{architecture} {case.name}": found
        for architecture in ARCHITECTURES
        for case in cases(op, architecture)
        if (
            found := problems(
                case, architecture, table[f"sm_{architecture}"][case.name], stack_bytes(version, architecture, case)
            )
        )
    }
    assert not wrong


@triton.jit
def product_kernel(x, y, out, m: tl.constexpr, n: tl.constexpr, k: tl.constexpr):
    i, j, l = tl.arange(0, m), tl.arange(0, n), tl.arange(0, k)  # noqa: E741
    a = tl.load(x + i[:, None] * k + l[None, :])
    b = tl.load(y + l[:, None] * n + j[None, :])
    tl.store(out + i[:, None] * n + j[None, :], tl.dot(a, b))


def product(m: int, n: int, k: int, num_warps: int, dtype: str = "bf16") -> Case:
    types = {"x": f"*{dtype}", "y": f"*{dtype}", "out": "*fp32"}
    return Case("product", product_kernel, types, {"m": m, "n": n, "k": k}, num_warps, num_stages=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_report_sees_tensor_cores(architecture):
    numbers = compile_case(product(128, 64, 64, 4), architecture)
    assert numbers[TENSOR_CORE[architecture]] > 0
    assert problems(product(128, 64, 64, 4), architecture, numbers) == []


def test_the_report_sees_a_lost_tensor_core_instruction():
    case = product(128, 64, 64, 4)
    without = {key: value for key, value in compile_case(case, 90).items() if key != "HGMMA"}
    assert problems(case, 90, without) == ["it has no HGMMA"]


@triton.jit
def serial_kernel(x, y, out, steps, n: tl.constexpr):
    """Products of a loop whose keys come from registers, as those of dkv did while it applied the position."""
    i, j = tl.arange(0, n), tl.arange(0, n)
    place = i[:, None] * n + j[None, :]
    keys = tl.load(x + place)
    keys = (keys.to(tl.float32) * 2.0).to(keys.dtype)
    total = tl.zeros((n, n), tl.float32)
    for step in range(steps):
        queries = tl.load(y + step * n * n + place)
        total = tl.dot(tl.dot(keys, tl.trans(queries)).to(queries.dtype), queries, total)
    tl.store(out + place, total)


def test_the_report_sees_serialized_wgmma_instructions():
    types = {"x": "*bf16", "y": "*bf16", "out": "*fp32", "steps": "i32"}
    case = Case("serial", serial_kernel, types, {"n": 64}, num_warps=4, num_stages=2)
    assert compile_case(product(128, 64, 64, 4), 90).get(SERIALIZED) is None
    numbers = compile_case(case, 90)
    assert numbers[SERIALIZED] > 0
    assert problems(case, 90, numbers) == ["ptxas serializes its wgmma instructions"]


def test_the_report_sees_spills():
    case = product(128, 256, 64, 1)
    assert "it spills registers" in problems(case, 80, compile_case(case, 80))


def test_the_report_allows_some_stack_if_told_to():
    numbers = {"registers": 255, "stack_bytes": 16, "shared_bytes": 0, "LDL": 4, "HMMA": 1}
    assert problems(product(16, 16, 16, 1), 80, numbers, stack_bytes=16) == []
    assert problems(product(16, 16, 16, 1), 80, numbers, stack_bytes=8) == ["it spills registers"]


def test_the_report_sees_too_much_shared_memory():
    case = product(128, 256, 512, 8)
    assert "more shared memory" in " ".join(problems(case, 90, compile_case(case, 90)))


KERNELS = """
import triton
import triton.language as tl

SIZE = tl.constexpr({size})


@triton.jit
def called(x):
    return x + {added}


@triton.jit
def kernel(out):
    # {comment}
    tl.store(out, called(tl.load(out)) + SIZE)
"""


def digest_of(folder, monkeypatch, **values) -> str:
    """The digest of one case whose kernel is in a module made of KERNELS."""
    path = folder / f"kernels_{abs(hash(tuple(values.items())))}.py"
    path.write_text(KERNELS.format(**({"size": 4, "added": 1, "comment": "why"} | values)))
    spec = importlib.util.spec_from_file_location("kernels_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    case = Case("case", module.kernel, {"out": "*fp32"}, {}, 4, 1)
    monkeypatch.setattr("tests.kernels.triton_report.cases", lambda op, architecture: [case])
    return code_digest("op")


def test_the_digest_changes_with_compiled_code_only(tmp_path, monkeypatch):
    plain = digest_of(tmp_path, monkeypatch)
    assert digest_of(tmp_path, monkeypatch, comment="another reason") == plain
    assert digest_of(tmp_path, monkeypatch, added=2) != plain
    assert digest_of(tmp_path, monkeypatch, size=8) != plain
