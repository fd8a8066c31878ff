"""docs/kernels/resources.md: the resources of the compiled kernels, and their occupancy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[2] / "tests" / "kernels"
MATRIX_INSTRUCTIONS = ("HMMA", "HGMMA", "UTCHMMA")

Kernels = Mapping[str, Mapping[str, int]]
"""What a version compiles, by the kernel's name."""

PARTITIONS = 4
"""Partitions of a multiprocessor."""

HEAD = """# Resources of the compiled kernels

`make bench-report` writes this page from the tables that `make triton-resources` and `make cuda-resources` compile
without a GPU. `make test` compares the tables with the code: it fails on a spill, a lost tensor-core instruction or a
change that is not in the table, or that `ptxas` makes wgmma instructions wait for one another ("serialized").

Triton's kernels are compiled by two versions: the one that GPU machines have and the one that CI has. Where their
figures differ, both are given, in that order.

Occupancy is the share of a multiprocessor's warps that fit by registers, shared memory and threads. It is not a goal in
itself: kernels that depend on tensor cores run well at 25%.
"""


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

    warps: int
    shared_bytes: int
    blocks: int
    registers: int = 65536
    register_unit: int = 256
    reserved_bytes: int = 1024
    shared_unit: int = 128


CHIPS = {
    "sm_80": Multiprocessor(64, 164 * 1024, 32),
    "sm_90": Multiprocessor(64, 228 * 1024, 32),
    "sm_100": Multiprocessor(64, 228 * 1024, 32),
}


def blocks_that_fit(chip: Multiprocessor, registers: int, shared_bytes: int, warps: int) -> int:
    """Blocks of `warps` warps that a multiprocessor holds at once; 0 where not even one fits."""
    # Each of the four partitions has a quarter of the registers, and a warp stays in one partition.
    of_a_warp = _round_up(32 * registers, chip.register_unit)
    by_registers = PARTITIONS * (chip.registers // PARTITIONS // of_a_warp) // warps
    by_memory = chip.shared_bytes // (_round_up(shared_bytes, chip.shared_unit) + chip.reserved_bytes)
    return min(chip.blocks, chip.warps // warps, by_registers, by_memory)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def page(folder: Path = TABLES) -> str:
    parts = [HEAD]
    for name, compiler in (("cuda", "nvcc"), ("triton", "triton")):
        tables = _tables(folder, name)
        versions = " and ".join(table[compiler] for table in tables)
        for op, chips in tables[-1]["kernels"].items():
            parts.append(f"## {op}: {compiler} {versions}\n")
            for chip in sorted(chips, key=lambda chip: int(re.sub(r"\D", "", chip))):
                summary = f"<details><summary>{chip}: {len(chips[chip])} kernels</summary>\n"
                parts += [summary, _rows(chip, [table["kernels"][op][chip] for table in tables]), "\n</details>\n"]
    return "\n".join(parts).rstrip() + "\n"


def _tables(folder: Path, name: str) -> list[dict[str, Any]]:
    """The tables of one compiler, the oldest version first."""
    of_versions = list((folder / f"{name}_resources").glob("*.json"))
    files = sorted(of_versions, key=lambda file: [int(part) for part in file.stem.split(".")])
    return [json.loads(file.read_text("utf-8")) for file in files or [folder / f"{name}_resources.json"]]


def _rows(chip: str, by_version: Sequence[Kernels]) -> str:
    rows = [
        "| kernel | registers | shared memory | spilled | matrix instructions | blocks a multiprocessor | occupancy |",
        "| --- " * 7 + "|",
    ]
    for name in by_version[-1]:
        cells = [_cells(chip, kernels[name]) for kernels in by_version]
        # One value where the versions agree.
        rows.append(
            f"| {' | '.join([name, *(' / '.join(dict.fromkeys(values)) for values in zip(*cells, strict=True))])} |"
        )
    return "\n".join(rows)


def _cells(chip: str, numbers: Mapping[str, int]) -> list[str]:
    """The row of a kernel after its name, as one version compiles it."""
    limits = CHIPS[chip.rstrip("af")]
    blocks = blocks_that_fit(limits, numbers["registers"], numbers["shared_bytes"], numbers["warps"])
    matrix = ", ".join(f"{numbers[kind]} {kind}" for kind in MATRIX_INSTRUCTIONS if kind in numbers) or "—"
    spilled = numbers["stack_bytes"] + numbers.get("spill_store_bytes", 0)
    return [
        str(numbers["registers"]),
        f"{numbers['shared_bytes']:,} B",
        f"{spilled} B",
        f"{matrix}, serialized" if "serialized" in numbers else matrix,
        str(blocks),
        f"{blocks * numbers['warps'] / limits.warps:.0%}",
    ]
