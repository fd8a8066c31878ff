"""A bounded run of the transcripts' fuzzing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reserve.data.sources.transcripts import TRANSCRIPT_SUFFIXES
from tests.fuzz.transcripts import check, read_damaged, seed_files

SEEDS = seed_files()


def test_every_format_is_fuzzed():
    assert {Path(name).suffix for name in SEEDS} == set(TRANSCRIPT_SUFFIXES)


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_are_good(tmp_path, name):
    (tmp_path / name).write_bytes(SEEDS[name])
    assert check(tmp_path / name)


def test_damaged_transcripts_give_plausible_words_or_a_reason(tmp_path):
    read, refused = read_damaged(tmp_path, 1500, 13, SEEDS)
    # Some damage is harmless and some is fatal; both must be among them for the test to mean anything.
    assert min(read, refused) > 150
