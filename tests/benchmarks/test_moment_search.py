from __future__ import annotations

import pytest

from benchmarks import moment_search

pytest.importorskip("faiss", reason="searching needs faiss: pip install 'merlot-reserve[search]'")


def test_a_search_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(moment_search, "PER_PART", 300)
    moment_search.write_index(tmp_path, 1000, 64)
    found = moment_search.measured(tmp_path, 64)
    assert all(value > 0 for value in found.values())
    assert len(moment_search.MomentIndex.open(tmp_path)) == 1000
