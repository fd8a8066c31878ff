"""How many blocks fit a multiprocessor."""

from __future__ import annotations

import pytest

from benchmarks.report.resources import CHIPS, blocks_that_fit


@pytest.mark.parametrize(
    ("registers", "shared_bytes", "warps", "blocks"),
    [
        (32, 0, 2, 32),  # by blocks
        (32, 0, 8, 8),  # by warps
        (128, 0, 4, 4),  # by registers: 65536 / (128 * 128)
        (129, 0, 4, 3),  # registers come in units of 256 a warp
        (32, 74_960, 8, 3),  # by shared memory: 228 KB / (74,960 rounded up to 128 + 1024)
        (200, 0, 2, 4),  # a partition's 16384 registers hold 2 warps of 6400 each, 4 partitions 8
        (255, 0, 16, 0),  # does not fit at all
    ],
)
def test_the_scarcest_resource_decides_on_sm_90(registers, shared_bytes, warps, blocks):
    assert blocks_that_fit(CHIPS["sm_90"], registers, shared_bytes, warps) == blocks
