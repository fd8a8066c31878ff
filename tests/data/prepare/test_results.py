"""How results are counted by their decoder."""

from __future__ import annotations

from reserve.data.prepare.results import decoder_counts


def test_counts_and_reasons():
    files = [("dali", "")] * 3 + [("pyav", "dali: av1")] + [("", "")]
    assert decoder_counts(files) == "dali: 3, pyav: 1 (dali: av1)"
    files = [("pyav", f"reason {number % 5}") for number in range(9)]
    assert decoder_counts(files) == "pyav: 9 (reason 0: 2, reason 1: 2, reason 2: 2, …)"
    assert decoder_counts([]) == ""
