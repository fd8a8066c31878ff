"""docs/kernels/resources.md: the resources of the compiled kernels, and their occupancy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).parents[2] / "tests" / "kernels"
MATRIX_INSTRUCTIONS = ("HMMA", "HGMMA", "UTCHMMA")

PARTITIONS = 4
"""Partitions of a multiprocessor."""

HEAD = """# Resources of the compiled kernels

`make bench-report` writes this page from the tables that `make triton-resources` and `make cuda-resources` compile
without a GPU. `make test` compares the tables with the code: it fails on a spill, a lost tensor-core instruction or a
change that is not in the table.

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
        table = json.loads((folder / f"{name}_resources.json").read_text("utf-8"))
        for op, chips in table["kernels"].items():
            parts.append(f"## {op}: {compiler} {table[compiler]}\n")
            for chip in sorted(chips, key=lambda chip: int(re.sub(r"\D", "", chip))):
                summary = f"<details><summary>{chip}: {len(chips[chip])} kernels</summary>\n"
                parts += [summary, _rows(chip, chips[chip]), "\n</details>\n"]
    return "\n".join(parts).rstrip() + "\n"


def _rows(chip: str, kernels: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        "| kernel | registers | shared memory | spilled | matrix instructions | blocks a multiprocessor | occupancy |",
        "| --- " * 7 + "|",
    ]
    limits = CHIPS[chip.rstrip("af")]
    for name, numbers in kernels.items():
        blocks = blocks_that_fit(limits, numbers["registers"], numbers["shared_bytes"], numbers["warps"])
        matrix = ", ".join(f"{numbers[kind]} {kind}" for kind in MATRIX_INSTRUCTIONS if kind in numbers)
        spilled = numbers["stack_bytes"] + numbers.get("spill_store_bytes", 0)
        rows.append(
            f"| {name} | {numbers['registers']} | {numbers['shared_bytes']:,} B | {spilled} B | {matrix or '—'} "
            f"| {blocks} | {blocks * numbers['warps'] / limits.warps:.0%} |"
        )
    return "\n".join(rows)
