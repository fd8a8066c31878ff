from __future__ import annotations

import importlib.util
import json

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)

import triton
import triton.language as tl

from tests.kernels.triton_report import (
    ARCHITECTURES,
    TABLE,
    TENSOR_CORE,
    Case,
    cases,
    code_digest,
    compile_case,
    ops,
    problems,
)

# Tiles are chosen so that the version of the table spills nothing. Triton 3.6 spills up to 16 bytes in some cases of
# sm_80: four registers, which cost less than a smaller tile.
STACK_OF_OTHER_VERSIONS = 16


def check(op: str, architecture: int, quick: bool) -> None:
    chosen = [case for case in cases(op, architecture) if case.quick == quick]
    reports = {case.name: compile_case(case, architecture) for case in chosen}
    stored = json.loads(TABLE.read_text())
    allowed = 0 if stored["triton"] == triton.__version__ else STACK_OF_OTHER_VERSIONS
    wrong = {c.name: p for c in chosen if (p := problems(c, architecture, reports[c.name], allowed))}
    assert not wrong
    if stored["triton"] != triton.__version__:
        pytest.skip(f"the table is of triton {stored['triton']}, this is {triton.__version__}")
    table = stored["kernels"][op][f"sm_{architecture}"]
    assert reports == {name: table.get(name) for name in reports}, "run make triton-resources and look at the change"


# One architecture in the quick tests: the digests below show whether the table holds for the others.
@pytest.mark.parametrize("architecture", [pytest.param(a, marks=[pytest.mark.slow] * (a != 90)) for a in ARCHITECTURES])
@pytest.mark.parametrize("op", ops())
def test_the_models_kernels_neither_spill_nor_change_unseen(op, architecture):
    check(op, architecture, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("op", ops())
def test_the_other_kernels_neither_spill_nor_change_unseen(op, architecture):
    check(op, architecture, quick=False)


@pytest.mark.parametrize("op", ops())
def test_the_table_has_every_case_and_no_other(op):
    table = json.loads(TABLE.read_text())["kernels"][op]
    assert set(table) == {f"sm_{architecture}" for architecture in ARCHITECTURES}
    for architecture in ARCHITECTURES:
        assert set(table[f"sm_{architecture}"]) == {case.name for case in cases(op, architecture)}


@pytest.mark.parametrize("op", ops())
def test_the_table_is_of_the_kernels_as_they_are(op):
    """Every case, also those that only the slow tests compile."""
    stored = json.loads(TABLE.read_text())
    if stored["triton"] != triton.__version__:
        pytest.skip(f"the table is of triton {stored['triton']}, this is {triton.__version__}")
    assert stored.get("code", {}).get(op) == code_digest(op), f"run python -m tests.kernels.triton_report {op}"


@pytest.mark.parametrize("op", ops())
def test_nothing_in_the_table_spills_or_lacks_its_instruction(op):
    table = json.loads(TABLE.read_text())["kernels"][op]
    wrong = {
        f"sm_{architecture} {case.name}": found
        for architecture in ARCHITECTURES
        for case in cases(op, architecture)
        if (found := problems(case, architecture, table[f"sm_{architecture}"][case.name]))
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
