"""How many blocks fit a multiprocessor, and the page of what compilers make of the kernels."""

from __future__ import annotations

import json

import pytest

from benchmarks.report.resources import CHIPS, blocks_that_fit, page


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


KERNEL = {"registers": 128, "stack_bytes": 0, "shared_bytes": 1024, "warps": 4}


@pytest.fixture
def tables(tmp_path):
    """Writes tables of nvcc and of two versions of Triton with one kernel each."""

    def write(older=KERNEL, newer=KERNEL):
        cuda = {"nvcc": "13.0", "kernels": {"one": {"sm_90a": {"kernel of nvcc": KERNEL}}}}
        (tmp_path / "cuda_resources.json").write_text(json.dumps(cuda))
        (tmp_path / "triton_resources").mkdir()
        for version, numbers in (("3.10.0", newer), ("3.9.0", older)):
            table = {"triton": version, "kernels": {"two": {"sm_90": {"kernel": numbers}}}}
            (tmp_path / "triton_resources" / f"{version}.json").write_text(json.dumps(table))
        return page(tmp_path)

    return write


def test_a_row_has_one_value_where_versions_agree(tables):
    written = tables()
    assert "## two: triton 3.9.0 and 3.10.0" in written
    assert "| kernel | 128 | 1,024 B | 0 B | — | 4 | 25% |" in written
    assert "| kernel of nvcc | 128 | 1,024 B | 0 B | — | 4 | 25% |" in written


def test_a_row_has_both_values_where_versions_differ(tables):
    written = tables(older=KERNEL | {"registers": 129, "HGMMA": 8}, newer=KERNEL | {"HGMMA": 8})
    assert "| kernel | 129 / 128 | 1,024 B | 0 B | 8 HGMMA | 3 / 4 | 19% / 25% |" in written


def test_a_serialized_kernel_is_called_so(tables):
    assert "| 8 HGMMA, serialized / 8 HGMMA |" in tables(
        older=KERNEL | {"HGMMA": 8, "serialized": 1}, newer=KERNEL | {"HGMMA": 8}
    )
