"""Resources of the compiled Triton kernels, without a GPU: registers, stack, shared memory, instructions.

    python -m tests.kernels.triton_report [OP …]    writes the table that test_triton_resources.py compares with

Each module of tests/kernels/triton_cases/ lists the cases of one op: everything that its launcher can pick. It does not
work with TRITON_INTERPRET=1.

Compiling every case takes minutes. So the quick tests compile a few, and compare a digest of the kernels' code for the
others: if it has changed, the table must be written again. They also check every row of the table.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from reserve_kernels.registry import OPS

TABLE = Path(__file__).with_name("triton_resources.json")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

ARCHITECTURES = (80, 90, 100)
# What a block may use, in bytes, and the tensor-core instruction a kernel should be made of.
SHARED_LIMIT = {80: 166_912, 90: 232_448, 100: 232_448}
TENSOR_CORE = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
COUNTED = ("HMMA", "HGMMA", "UTCHMMA", "LDGSTS", "UTMALDG", "ATOMG", "RED", "REDG", "LDL", "STL")


@dataclass(frozen=True)
class Case:
    """One compilation of a kernel.

    `types` gives Triton's type of each argument that is not a constant ("*bf16", "i32"). Pointers are taken to be
    multiples of 16 except those in `unaligned`, and numbers to be arbitrary except those in `divisible`, which are
    multiples of 16, as the launcher passes them. `tensor_core` is the expected instruction: "best" for the
    architecture's own, "any" for that or HMMA, "none" for no expectation. `quick` cases are compiled in every test run,
    the others by the slow tests.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int
    unaligned: frozenset[str] = frozenset()
    divisible: frozenset[str] = frozenset()
    tensor_core: str = "best"
    quick: bool = False


def ops() -> list[str]:
    """The folders of the ops that have Triton kernels."""
    return [op.folder for op in OPS if op.triton]


def cases(op: str, architecture: int) -> list[Case]:
    """Everything that the launcher of `op` can pick on an architecture (80, 90 …)."""
    module = importlib.import_module(f"tests.kernels.triton_cases.{op}")
    found = list(module.cases(architecture))
    assert len({case.name for case in found}) == len(found), f"{op}: two cases of one name"
    return found


def compile_case(case: Case, architecture: int) -> dict[str, int]:
    """Compiles `case` and returns registers, stack and shared memory in bytes, and the counted instructions it has."""
    names = case.kernel.arg_names
    types = {name: "constexpr" if name in case.constants else case.types[name] for name in names}
    constants = {(names.index(name),): value for name, value in case.constants.items()}
    aligned = [n for n in names if n in case.divisible or (types[n].startswith("*") and n not in case.unaligned)]
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    # Fusing as the launchers ask for it: the default differs between versions.
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages, "enable_fp_fusion": True}
    compiled = triton.compile(
        ASTSource(case.kernel, types, constants, hints), target=GPUTarget("cuda", architecture, 32), options=options
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", cubin.name)
        code = _run("nvdisasm", "-c", cubin.name)
    numbers = {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        "stack_bytes": int(re.search(r"STACK:(\d+)", usage)[1]),  # type: ignore[index]
        "shared_bytes": compiled.metadata.shared,
        "warps": case.num_warps,
    }
    counts = {name: len(re.findall(rf"\b{name}\b", code)) for name in COUNTED}
    return numbers | {name: count for name, count in counts.items() if count}


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / tool), *arguments], capture_output=True, text=True, check=True).stdout


def code_digest(op: str) -> str:
    """A digest of the cases of `op` and of the code of their kernels and what those call, without comments."""
    all_cases = [case for architecture in ARCHITECTURES for case in cases(op, architecture)]
    found: dict[str, JITFunction] = {}
    waiting = [case.kernel for case in all_cases]
    while waiting:
        function = waiting.pop()
        name = f"{function.fn.__module__}.{function.fn.__qualname__}"
        if name not in found:
            found[name] = function
            names = inspect.getclosurevars(function.fn).globals.values()
            waiting += [value for value in names if isinstance(value, JITFunction)]
    described = [_code(found[name]) for name in sorted(found)]
    for case in all_cases:
        options = (sorted(case.types.items()), sorted(case.constants.items()), case.num_warps, case.num_stages)
        described.append(f"{case.name} {options} {sorted(case.unaligned)} {sorted(case.divisible)}")
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _code(function: JITFunction) -> str:
    """The function without its comments and docstring, and the constants of its module that it names."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function.fn))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    used = inspect.getclosurevars(function.fn).globals
    constants = sorted(
        f"{name}={value!r}" for name, value in used.items() if isinstance(value, tl.constexpr | int | float)
    )
    return ast.unparse(tree) + "\n".join(constants)


def problems(case: Case, architecture: int, numbers: Mapping[str, int], stack_bytes: int = 0) -> list[str]:
    """Describes what is wrong with a compiled case, which may spill `stack_bytes`; empty if nothing is."""
    found = []
    spills = numbers["stack_bytes"] or "LDL" in numbers or "STL" in numbers
    if spills and not 0 < numbers["stack_bytes"] <= stack_bytes:
        found.append("it spills registers")
    if numbers["shared_bytes"] > SHARED_LIMIT[architecture]:
        found.append(f"it needs more shared memory than the {SHARED_LIMIT[architecture]} bytes of sm_{architecture}")
    instructions = {"best": {TENSOR_CORE[architecture]}, "any": {TENSOR_CORE[architecture], "HMMA"}, "none": set()}
    expected = instructions[case.tensor_core]
    if expected and not expected & numbers.keys():
        found.append(f"it has no {' or '.join(sorted(expected))}")
    return found


def write_table(chosen: list[str]) -> None:
    """Compiles everything of the chosen ops and replaces their part of the table."""
    stored = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    same = stored.get("triton") == triton.__version__
    kernels = stored["kernels"] if same else {}
    digests = stored.get("code", {}) if same else {}
    for op in chosen if same else ops():
        kernels[op] = {}
        digests[op] = code_digest(op)
        for architecture in ARCHITECTURES:
            rows: dict[str, dict[str, int]] = {}
            kernels[op][f"sm_{architecture}"] = rows
            for case in cases(op, architecture):
                rows[case.name] = numbers = compile_case(case, architecture)
                print(f"sm_{architecture} {case.name}: {numbers} {'; '.join(problems(case, architecture, numbers))}")
    table = {"triton": triton.__version__, "code": digests, "kernels": dict(sorted(kernels.items()))}
    TABLE.write_text(_one_line_a_case(table))


def _one_line_a_case(table: dict[str, Any]) -> str:
    """JSON with the numbers of a case on one line, for readable diffs."""
    text = json.dumps(table, indent=1)
    return re.sub(r"\{\s*(\"registers\"[^{}]*?)\s*\}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", text) + "\n"


if __name__ == "__main__":
    write_table(sys.argv[1:] or ops())
