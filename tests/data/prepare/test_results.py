"""How results are counted by their decoder."""

from __future__ import annotations

from collections import Counter

from reserve.data.prepare.results import decoder_counts


def test_counts_and_reasons():
    files = Counter({("dali", ""): 3, ("pyav", "dali: av1"): 1, ("", ""): 1})
    assert decoder_counts(files) == "dali: 3, pyav: 1 (dali: av1)"
    files = Counter(("pyav", f"reason {number % 5}") for number in range(9))
    assert decoder_counts(files) == "pyav: 9 (reason 0: 2, reason 1: 2, reason 2: 2, …)"
    assert decoder_counts(Counter()) == ""
