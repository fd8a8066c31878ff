from __future__ import annotations

import json

import pytest

from reserve_kernels import native
from tests.kernels.nvcc_report import ARCHITECTURES, SOURCES, TABLE, compile_report, find_nvcc, release

pytestmark = [
    pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc"),
    pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable())),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("op", SOURCES)
def test_kernels_neither_spill_nor_change_unseen(op, architecture):
    report = compile_report(op, architecture)
    for variant, numbers in report.items():
        assert numbers["spill_store_bytes"] == numbers["spill_load_bytes"] == numbers["stack_bytes"] == 0, variant
    stored = json.loads(TABLE.read_text())
    if stored["nvcc"] != release():
        pytest.skip(f"the table is of nvcc {stored['nvcc']}, this is {release()}")
    assert report == stored["kernels"][op][f"sm_{architecture}"], "run make cuda-resources and look at the change"
