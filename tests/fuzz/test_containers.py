"""A bounded run of the containers' fuzzing."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.fuzz.containers import prepare_damaged, seed_files


def test_damaged_videos_are_prepared_or_skipped_with_a_reason(tmp_path):
    seeds = seed_files(tmp_path / "seeds")
    # In a process of its own: the memory counted is that of all child processes so far.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        report = pool.submit(prepare_damaged, tmp_path / "run", 64, 13, seeds).result()
    # Some damage is harmless and some is fatal; both must be among them for the test to mean anything.
    assert 5 < len(report.stores) < 60
