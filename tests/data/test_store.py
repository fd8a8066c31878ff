"""Store files: exact round trips, and BadInput from anything else."""

from __future__ import annotations

import dataclasses
import json
import pickle
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import load, save

from reserve.data.images import encode_jpeg
from reserve.data.store import load_segments, load_texts, read_summary, save_segments
from reserve.data.types import Segments, VideoMetadata, Word
from reserve.errors import BadInput


def segments(count=5):
    rng = np.random.default_rng(0)
    sizes = rng.integers(8, 40, size=(count, 2))
    return Segments(
        video_id="folder/vidéo.mp4",
        start=np.arange(count) * 5.25,
        playback_speed=np.arange(count, dtype=np.int32) % 3 + 1,
        frames=[encode_jpeg(rng.integers(256, size=(*size, 3), dtype=np.uint8)) for size in sizes],
        log_mel=rng.standard_normal((count, 188, 64)).astype(np.float16),
        words=[[Word(f"word{i}", 0.5, 0.75), Word("naïve", 1.0, 1 / 3)] * (i % 3) for i in range(count)],
        metadata=VideoMetadata("A “title”", "line\nline", ("a", "b")),
    )


def assert_same(got, expected, start=0, stop=None):
    part = slice(start, stop)
    np.testing.assert_array_equal(got.start, expected.start[part])
    np.testing.assert_array_equal(got.playback_speed, expected.playback_speed[part])
    np.testing.assert_array_equal(got.log_mel, expected.log_mel[part])
    assert got.frames == expected.frames[part]
    assert got.words == expected.words[part]
    assert (got.video_id, got.metadata) == (expected.video_id, expected.metadata)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (1, 4), (4, 5), (2, 2)])
def test_round_trip(tmp_path, start, stop):
    path = tmp_path / "a.safetensors"
    save_segments(segments(), path, key="k")
    assert_same(load_segments(path, start, stop), segments(), start, stop)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (1, 4)])
def test_sound_that_was_kept(tmp_path, start, stop):
    sound = [bytes([number]) * (number + 1) for number in range(5)]
    save_segments(dataclasses.replace(segments(), sound=sound), tmp_path / "a.safetensors")
    found = load_segments(tmp_path / "a.safetensors", start, stop)
    assert_same(found, segments(), start, stop)
    assert found.sound == sound[start:stop]
    save_segments(segments(), tmp_path / "b.safetensors")
    assert load_segments(tmp_path / "b.safetensors").sound == []


def test_video_id_that_is_not_utf8(tmp_path):
    """Python's form of file names in another encoding."""
    path = tmp_path / "a.safetensors"
    save_segments(dataclasses.replace(segments(), video_id="vid\udce9o.mp4"), path)
    assert load_segments(path).video_id == "vid\udce9o.mp4"


def test_summary(tmp_path):
    path = tmp_path / "a.safetensors"
    save_segments(segments(), path, key="k", warnings=["not \ud800", "so good"])
    summary = read_summary(path)
    assert (summary.path, summary.key, summary.warnings) == (path, "k", ("not \ud800", "so good"))
    assert (summary.num_segments, summary.num_words) == (5, 8)


def test_texts(tmp_path):
    save_segments(segments(3), tmp_path / "a.safetensors")
    assert load_texts(tmp_path / "a.safetensors") == ["", "word1 naïve", "word2 naïve word2 naïve"]


def test_no_temporary_file_is_left(tmp_path):
    save_segments(segments(), tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_segments(segments(2), path, key="old")
    monkeypatch.setattr("reserve.fs.os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_segments(segments(5), path, key="new")
    assert read_summary(path).key == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_range_beyond_the_video(tmp_path):
    save_segments(segments(), tmp_path / "a.safetensors")
    with pytest.raises(IndexError, match="3 to 6 are out of bounds: the video has 5"):
        load_segments(tmp_path / "a.safetensors", 3, 6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated(tmp_path, share):
    path = tmp_path / "a.safetensors"
    save_segments(segments(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadInput, match="not a store of segments"):
        load_segments(path)


def test_pickle_is_not_run(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(segments()))
    with pytest.raises(BadInput, match="not a store of segments"):
        load_segments(tmp_path / "a.safetensors")


def test_absent(tmp_path):
    with pytest.raises(BadInput, match="not a store of segments"):
        read_summary(tmp_path / "absent.safetensors")


def forge(tmp_path, header=None, **tensors):
    """A store file with some tensors and header fields replaced, or dropped where None."""
    path = tmp_path / "a.safetensors"
    save_segments(segments(), path)
    parts = {**load(path.read_bytes()), **tensors}
    fields = {"format": "reserve-segments-1", "key": "", "num_segments": "5", "num_words": "8", "warnings": "[]"}
    fields |= header or {}
    path.write_bytes(
        save(
            {name: part for name, part in parts.items() if part is not None},
            metadata={name: field for name, field in fields.items() if field is not None},
        )
    )
    return path


def text(**fields):
    whole = {"video_id": "a", "metadata": {"title": "", "description": "", "tags": []}, "words": [[]] * 5, **fields}
    return np.frombuffer(json.dumps(whole).encode(), dtype=np.uint8)


@pytest.mark.parametrize(
    ("header", "tensors", "reason"),
    [
        ({"format": "other"}, {}, "its format is 'other'"),
        ({"num_segments": "many"}, {}, "header"),
        ({"key": None}, {}, "key"),
        ({"warnings": "3"}, {}, "header"),
        ({"num_segments": "6"}, {}, "its header counts 6 segments"),
        ({}, {"log_mel": None}, "it holds"),
        ({}, {"extra": np.zeros(1)}, "it holds"),
        ({}, {"start": np.zeros(5, np.float32)}, "start is F32"),
        ({}, {"log_mel": np.zeros((5, 188), np.float16)}, "log_mel is F16 of shape"),
        ({}, {"log_mel": np.full((5, 188, 64), np.nan, np.float16)}, "spectrograms"),
        ({}, {"playback_speed": np.full(5, 9, np.int32)}, "playback speeds"),
        ({}, {"start": np.full(5, np.inf)}, "times or playback speeds"),
        ({}, {"frame_offsets": np.array([0, 1, 2, 3, 4, 10**15])}, "frame offsets"),
        ({}, {"frame_offsets": np.array([0, 5, 3, 6, 7, 8])}, "frame offsets"),
        ({}, {"frame_offsets": np.zeros(4, np.int64)}, "4 frame offsets"),
        ({}, {"text": np.frombuffer(b"{", dtype=np.uint8)}, "text cannot be read"),
        ({}, {"text": np.frombuffer(b"[" * 10**5, dtype=np.uint8)}, "text cannot be read"),
        ({}, {"text": text(words=[[["a", 1]]] * 5)}, "text cannot be read"),
        ({}, {"text": text(words=[])}, "words of 0 segments"),
        ({}, {"text": text(words=[[["a", float("nan"), 1]]] * 5)}, "out of range"),
        ({}, {"text": text(words=[[["a", 0, 1e300]]] * 5)}, "out of range"),
        ({}, {"text": text(metadata=None)}, "text cannot be read"),
    ],
)
def test_forged(tmp_path, header, tensors, reason):
    with pytest.raises(BadInput, match=reason):
        load_segments(forge(tmp_path, header, **tensors))


def test_forging_changes_nothing_else(tmp_path):
    assert len(load_segments(forge(tmp_path))) == 5


def test_flipped_bytes_never_give_anything_but_segments_or_bad_input(tmp_path):
    path = tmp_path / "a.safetensors"
    save_segments(segments(), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, 2500, size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(BadInput):
            assert len(load_segments(path)) == 5
