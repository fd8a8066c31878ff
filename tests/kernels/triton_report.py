"""Resources of the compiled Triton kernels, without a GPU: registers, stack, shared memory, instructions.

    python -m tests.kernels.triton_report [OP …]    writes the tables that test_triton_resources.py compares with

There is a table for each version in triton_versions.py, compiled in a process of its own.
Each module of tests/kernels/triton_cases/ lists the cases of one op: everything that its launcher can pick. It does not
work with TRITON_INTERPRET=1.

Compiling every case takes minutes. So the quick tests compile a few, and compare a digest of the kernels' code for the
others: if it has changed, the table must be written again. They also check every row of the table.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib.util
import inspect
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from reserve_kernels.registry import OPS
from tests.kernels.triton_versions import ROOT, VERSIONS, environment, missing

TABLES = Path(__file__).with_name("triton_resources")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

ARCHITECTURES = (80, 90, 100)
# What a block may use, in bytes, and the tensor-core instruction a kernel should be made of.
SHARED_LIMIT = {80: 166_912, 90: 232_448, 100: 232_448}
TENSOR_CORE = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SERIALIZED = "serialized"
"""Key of the number of functions whose wgmma instructions ptxas makes wait for one another, if it is not 0."""
SERIALIZED_REMARK = "C7515"
COUNTED = ("HMMA", "HGMMA", "UTCHMMA", "LDGSTS", "UTMALDG", "ATOMG", "RED", "REDG", "LDL", "STL")


Numbers = dict[str, dict[str, int]]
"""What `compile_case` returned, by the name of the case."""


@dataclass(frozen=True)
class Case:
    """One compilation of a kernel.

    `types` gives Triton's type of each argument that is not a constant ("*bf16", "i32"). Pointers are taken to be
    multiples of 16 except those in `unaligned`, and numbers to be arbitrary except those in `divisible`, which are
    multiples of 16, as the launcher passes them. `tensor_core` is the expected instruction: "best" for the
    architecture's own, "any" for that or HMMA, "none" for no expectation. `max_registers` is the launcher's `maxnreg`,
    0 for none. `quick` cases are compiled in every test run, the others by the slow tests.
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
    max_registers: int = 0
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
    options |= {"maxnreg": case.max_registers} if case.max_registers else {}
    with knobs.compilation.scope(), knobs.nvidia.scope(), redirect_stdout(io.StringIO()) as log:
        # What the cache has comes without ptxas's remarks.
        knobs.compilation.always_compile = knobs.nvidia.dump_ptxas_log = True
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
    counts[SERIALIZED] = log.getvalue().count(SERIALIZED_REMARK)
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
        limit = f" at most {case.max_registers} registers" if case.max_registers else ""
        described.append(f"{case.name} {options} {sorted(case.unaligned)} {sorted(case.divisible)}{limit}")
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
    if SERIALIZED in numbers:
        found.append("ptxas serializes its wgmma instructions")
    return found


def table_file(version: str) -> Path:
    return TABLES / f"{version}.json"


def compiled_by(version: str, chosen: Sequence[str], architecture: int, kind: str) -> dict[str, Numbers]:
    """What cases of the chosen ops compile to with a version of Triton, by op; `kind` is "quick", "others" or "all"."""
    command = [sys.executable, "-m", "tests.kernels.triton_report", "--compile", kind, str(architecture), *chosen]
    done = subprocess.run(command, cwd=ROOT, env=environment(version), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"compiling with triton {version} failed:\n{done.stderr}")
    numbers: dict[str, Numbers] = json.loads(done.stdout)
    return numbers


def compile_kind(kind: str, architecture: int, chosen: Sequence[str]) -> dict[str, Numbers]:
    """The same with the version that this process imports."""
    wanted = {"quick": (True,), "others": (False,), "all": (True, False)}[kind]
    return {
        op: {case.name: compile_case(case, architecture) for case in cases(op, architecture) if case.quick in wanted}
        for op in chosen
    }


def write_tables(chosen: Sequence[str]) -> None:
    """Compiles everything of the chosen ops with every version and replaces their part of the tables.

    Raises SystemExit if a version is missing.
    """
    if absent := [reason for version in VERSIONS if (reason := missing(version))]:
        raise SystemExit("; ".join(absent))
    with ThreadPoolExecutor() as pool:
        for op in chosen:
            found: dict[str, dict[str, Numbers]] = {version: {} for version in VERSIONS}
            for architecture in ARCHITECTURES:
                run = functools.partial(compiled_by, chosen=[op], architecture=architecture, kind="all")
                compiled = pool.map(run, VERSIONS)
                for version, numbers in zip(VERSIONS, compiled, strict=True):
                    found[version][f"sm_{architecture}"] = numbers[op]
                    for case in cases(op, architecture):
                        wrong = "; ".join(problems(case, architecture, numbers[op][case.name]))
                        print(f"{version} sm_{architecture} {op} {case.name}: {numbers[op][case.name]} {wrong}")
            for version, kernels in found.items():
                _keep(version, op, kernels)


def _keep(version: str, op: str, kernels: dict[str, Numbers]) -> None:
    file = table_file(version)
    stored = json.loads(file.read_text("utf-8")) if file.exists() else {"code": {}, "kernels": {}}
    digests = stored["code"] | {op: code_digest(op)}
    of_ops = stored["kernels"] | {op: kernels}
    table = {"triton": version, "code": dict(sorted(digests.items())), "kernels": dict(sorted(of_ops.items()))}
    file.parent.mkdir(exist_ok=True)
    file.write_text(_one_line_a_case(table), "utf-8")


def _one_line_a_case(table: dict[str, Any]) -> str:
    """JSON with the numbers of a case on one line, for readable diffs."""
    text = json.dumps(table, indent=1)
    return re.sub(r"\{\s*(\"registers\"[^{}]*?)\s*\}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.triton_report", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP")
    # What `compiled_by` asks its process for.
    parser.add_argument("--compile", nargs=2, metavar=("KIND", "ARCHITECTURE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.ops or ops()
    if options.compile:
        print(json.dumps(compile_kind(options.compile[0], int(options.compile[1]), chosen)))
    else:
        write_tables(chosen)


if __name__ == "__main__":
    main()
