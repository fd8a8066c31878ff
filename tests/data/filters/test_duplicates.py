"""Copies are found; videos with like narration, the same song or the same pictures are none."""

from __future__ import annotations

import random

import numpy as np
import pytest

from reserve.data.filters import duplicates
from reserve.data.filters.duplicates import find_duplicates
from reserve.data.filters.pictures import picture_hash, thumbnail
from reserve.data.filters.signature import SIGNATURE_BYTES, SLOTS, make_signature
from reserve.errors import BadInput
from tests.helpers.drawn_videos import drawn_video

COPIES = {
    "re-encoded": {"quality": 20},
    "enlarged": {"size": (288, 480)},
    "small": {"size": (96, 160)},
    "cropped": {"crop": 0.05},
    "a second shorter": {"cut": 1.0},
    "two seconds shorter": {"cut": 2.3, "quality": 40},
    "12 s shorter": {"cut": 12.0, "size": (144, 240)},
}


def entry(index, name, **changes):
    """What find_duplicates takes of a drawn video."""
    video = drawn_video(index, name, **changes)
    hashes = [picture_hash(thumbnail(frame)) for frame in video.frames]
    texts = [" ".join(word.text for word in words) for words in video.words]
    return name, len(video), make_signature(texts, hashes)


@pytest.fixture(scope="module")
def originals():
    return [entry(index, f"original {index:02}") for index in range(32)]


def test_different_videos_are_no_duplicates(originals):
    """496 pairs, all narrated by the same templates."""
    assert find_duplicates(originals) == {}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(originals, kind):
    copies = [entry(index, f"copy {index:02}", **COPIES[kind]) for index in range(12)]
    found = find_duplicates([*originals, *copies])
    pairs = {tuple(sorted(pair)) for pair in found.items()}
    expected = {(f"copy {index:02}", f"original {index:02}") for index in range(12)}
    assert pairs <= expected
    # Frames of a shifted copy may all lie at other moments of what moves.
    assert len(pairs) >= (11 if "shorter" in kind else 12)


def test_the_same_words_with_other_pictures_are_no_duplicates(originals):
    """Two films with the same song. Scenes at one place have the same background in all demo videos."""
    others = [entry(index, f"other film {index}", pictures_of=index + 1) for index in range(12)]
    assert find_duplicates([*originals, *others]) == {}


def test_the_same_pictures_with_other_words_are_no_duplicates(originals):
    dubbed = [entry(index + 12, f"dubbed {index}", pictures_of=index) for index in range(3)]
    assert find_duplicates([*originals[:12], *dubbed]) == {}


def signature_of(rng, words=None):
    frames = rng.integers(256, size=SIGNATURE_BYTES - 1 - SLOTS, dtype=np.uint8)
    words = rng.integers(256, size=SLOTS, dtype=np.uint8) if words is None else words
    return (bytes([1]) + frames.tobytes() + words.tobytes()).hex()


def test_the_one_with_most_segments_is_kept_or_else_the_smallest_id():
    signature = signature_of(np.random.default_rng(0))
    videos = [("c", 20, signature), ("b", 31, signature), ("a", 30, signature), ("d", 31, signature)]
    expected = {"a": "b", "c": "b", "d": "b"}
    for seed in range(5):
        random.Random(seed).shuffle(videos)
        assert find_duplicates(iter(videos)) == expected


def test_copies_of_copies_do_not_chain():
    """b is like a and like c, which are unlike each other: with a kept, b goes and c stays."""
    rng = np.random.default_rng(0)
    a, c = rng.integers(128, size=(2, SLOTS), dtype=np.uint8)
    c += 128
    b = np.concatenate([a[: SLOTS // 2], c[SLOTS // 2 :]])
    frames = bytes(SIGNATURE_BYTES - 1 - SLOTS)
    videos = [(name, 9, (b"\1" + frames + words.tobytes()).hex()) for name, words in zip("abc", (a, b, c), strict=True)]
    assert find_duplicates(videos) == {"b": "a"}


def test_videos_without_a_signature_are_never_duplicates():
    assert find_duplicates([("a", 3, ""), ("b", 3, "")]) == {}
    assert find_duplicates([]) == {}


def test_a_bad_signature_is_named():
    with pytest.raises(BadInput, match="'beef'"):
        find_duplicates([("a", 3, "beef")])


def test_many_videos_with_the_same_words_take_bounded_time(monkeypatch):
    """One song under many films: each is compared with MOST_COMPARED others, not with all."""
    compared = []
    original = duplicates._first_match

    def counting(own, others):
        compared.append(len(others))
        return original(own, others)

    monkeypatch.setattr(duplicates, "MOST_COMPARED", 20)
    monkeypatch.setattr(duplicates, "_first_match", counting)
    rng = np.random.default_rng(0)
    words = rng.integers(256, size=SLOTS, dtype=np.uint8)
    videos = [(f"{n:03}", 9, signature_of(rng, words)) for n in range(100)]
    videos.append(("copy", 5, videos[3][2]))
    assert find_duplicates(videos) == {"copy": "003"}
    assert len(compared) == 100
    assert max(compared) == 20


def test_only_videos_that_share_a_band_are_compared():
    rng = np.random.default_rng(0)
    data = np.frombuffer(bytes.fromhex("".join(signature_of(rng) for _ in range(2000))), np.uint8)
    words = data.reshape(2000, SIGNATURE_BYTES)[:, -SLOTS:].copy()
    words[1500, 8:12] = words[70, 8:12]
    shared, buckets = duplicates._shared_buckets(words)
    assert shared.tolist() == [70, 1500]
    assert (buckets >= 0).sum() == 2
    assert buckets[0, 2] == buckets[1, 2]
