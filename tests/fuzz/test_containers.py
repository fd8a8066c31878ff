"""A bounded run of the containers' fuzzing."""

from __future__ import annotations

from tests.fuzz.containers import prepare_damaged, seed_files


def test_damaged_videos_are_prepared_or_skipped_with_a_reason(tmp_path):
    report = prepare_damaged(tmp_path / "run", 64, 13, seed_files(tmp_path / "seeds"))
    # Some damage is harmless and some is fatal; both must be among them for the test to mean anything.
    assert 5 < len(report.stores) < 60
