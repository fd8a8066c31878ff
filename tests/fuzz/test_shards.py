"""A bounded run of the shards' fuzzing."""

from __future__ import annotations

import numpy as np

from tests.fuzz.shards import Case, check, damaged_set, seeds, use_damaged


def test_whole_sets_have_no_fault(tmp_path):
    for number, files in enumerate(seeds()):
        assert check(Case(files, frozenset()), tmp_path / str(number)) == 0


def test_damage_is_of_every_kind():
    rng = np.random.default_rng(0)
    cases = [damaged_set(rng) for _ in range(200)]
    touched = {name for case in cases for name in case.changed}
    assert {"manifest.json", "settings.json", "shard-00000.tar", "shard-00000.index", "shard-00000.json"} <= touched
    hostile = [case for case in cases if not case.changed]
    assert len(hostile) > 40
    assert any(b"../../escaped" in data for case in hostile for data in case.files.values())


def test_damaged_sets_are_found_and_refused(tmp_path):
    faulty, _ = use_damaged(tmp_path, 25, 13)
    # Nearly all damage is damage: only what was made to fit, or is not there at all, has no fault.
    assert faulty > 18
