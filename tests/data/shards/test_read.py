"""Reading shards: any segments of any video, checked; what is damaged or gone is named."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from reserve.data.segment_sound import flac_log_mels
from reserve.data.shards.files import LocalFiles
from reserve.data.shards.index import ShardIndex
from reserve.data.shards.layout import MANIFEST, SETTINGS
from reserve.data.shards.read import Shard, ShardSet, _spectrogram, _Text, _usual_header
from reserve.data.shards.records import write_settings
from reserve.data.store import load_segments, load_texts
from reserve.errors import BadInput, DamagedSample
from tests.helpers.small_shards import make_shard_set, settings
from tests.helpers.small_stores import DATA


@pytest.fixture
def folder(tmp_path):
    make_shard_set(tmp_path / "set", (2, 0, 1), 6)
    return tmp_path / "set"


def opened(folder, number=0):
    return Shard(LocalFiles(folder), number, DATA)


def store(folder, video):
    return folder.parent / "set-stores" / f"video-{video}.safetensors"


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (0, 1), (5, 6), (2, 5), (0, None)])
@pytest.mark.parametrize("video", [0, 1])
def test_segments_are_those_of_the_store(folder, video, start, stop):
    found, stored = opened(folder).load(video, start, stop), load_segments(store(folder, video), start, stop)
    for name in ("start", "playback_speed", "log_mel"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stored, name))
        assert getattr(found, name).dtype == getattr(stored, name).dtype
    for name in ("video_id", "frames", "words", "metadata", "sound"):
        assert getattr(found, name) == getattr(stored, name)


def test_words_are_those_of_the_store(folder):
    assert opened(folder).texts(1) == load_texts(store(folder, 1))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (5, 4), (0, 7)])
def test_segments_out_of_bounds(folder, start, stop):
    with pytest.raises(IndexError, match=r"out of bounds: the video has 6"):
        opened(folder).load(0, start, stop)


def test_a_shard_can_be_pickled(folder):
    shard = opened(folder)
    shard.load(0)
    again = pickle.loads(pickle.dumps(shard))
    assert again.load(1, 2, 3).words == shard.load(1, 2, 3).words


def test_a_set_gives_the_shards_that_hold_segments(folder):
    found = ShardSet.open(folder)
    assert [(part.name, part.num_segments) for part in found.parts] == [
        (f"{folder}/shard-00000", 12),
        (f"{folder}/shard-00002", 6),
    ]
    assert found.data == DATA
    assert found.parts[1].open().video_id(0) == "video-2.mp4"


def test_spectrograms_of_flac_shards_are_made_of_the_sound(tmp_path):
    make_shard_set(tmp_path / "set", (1,), 3, "flac")
    segments = opened(tmp_path / "set").load(0, 0, 2)
    expected = flac_log_mels(segments.sound, [1, 1], DATA)
    np.testing.assert_array_equal(segments.log_mel, expected)
    assert np.abs(expected[0].astype(float) - expected[1]).max() > 1


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_any_flipped_byte_of_a_sample_is_noticed(folder):
    """Also in headers and padding, and the other samples can still be read."""
    index = ShardIndex(folder / "shard-00000.index")
    tar = folder / "shard-00000.tar"
    begin, end = (int(place) for place in index.sample_start[3:5])
    for place in [*range(begin, end, 997), begin, end - 1]:
        flip(tar, place)
        shard = opened(folder)
        with pytest.raises(DamagedSample, match=r"set/shard-00000\.tar: video-0\.mp4: segment 3 is damaged"):
            shard.load(0, 2, 5)
        assert len(shard.load(0, 4, 6)) == 2
        flip(tar, place)
    assert len(opened(folder).load(0)) == 6


def test_every_flipped_byte_of_the_tables_is_noticed(folder):
    path = folder / "shard-00000.index"
    expected = opened(folder)
    before = [expected.load(video) for video in (0, 1)], [expected.texts(video) for video in (0, 1)]
    noticed = 0
    for place in range(path.stat().st_size):
        flip(path, place)
        try:
            found = opened(folder)
            after = [found.load(video) for video in (0, 1)], [found.texts(video) for video in (0, 1)]
        except BadInput:
            noticed += 1
        else:
            # Bytes that pad the header may change without any effect.
            assert after[1] == before[1]
            assert [each.words for each in after[0]] == [each.words for each in before[0]]
        flip(path, place)
    assert noticed > 0.95 * path.stat().st_size


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_truncated_files_are_noticed(folder, size):
    (folder / "shard-00002.tar").write_bytes((folder / "shard-00002.tar").read_bytes()[:size])
    with pytest.raises(DamagedSample, match=r"shard-00002\.tar: video-2\.mp4: segment 0 is damaged"):
        opened(folder, 2).load(0)
    (folder / "shard-00000.index").write_bytes((folder / "shard-00000.index").read_bytes()[:size])
    with pytest.raises(BadInput, match=r"set/shard-00000\.index: not the index of a shard"):
        opened(folder)


def test_swapped_indexes_are_noticed(folder):
    first, last = folder / "shard-00000.index", folder / "shard-00002.index"
    data = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(data)
    with pytest.raises(DamagedSample):
        opened(folder, 2).load(1)


def test_swapped_shards_of_a_set_are_refused(tmp_path):
    """Their samples are whole, but they are not those that the order of the run means."""
    make_shard_set(tmp_path / "set", (2, 2), 6)
    for suffix in ("tar", "index"):
        first, second = (tmp_path / "set" / f"shard-0000{number}.{suffix}" for number in (0, 1))
        first.rename(tmp_path / "other")
        second.rename(first)
        (tmp_path / "other").rename(second)
    for part in ShardSet.open(tmp_path / "set").parts:
        with pytest.raises(BadInput, match=rf"{part.name}\.index is damaged or of another set"):
            part.open()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_shard_that_vanishes_after_a_read_is_named(folder, replaced):
    shard, other = (part.open() for part in ShardSet.open(folder).parts)
    shard.load(0)
    if replaced:
        (folder / "shard-00002.tar").replace(folder / "shard-00000.tar")
        with pytest.raises(DamagedSample, match="segment 0 is damaged"):
            shard.load(0)
        shard = other
    else:
        (folder / "shard-00000.tar").unlink()
    with pytest.raises(BadInput, match=rf"{shard.where}\.tar: No such file") as caught:
        shard.load(0)
    assert not isinstance(caught.value, DamagedSample)


def test_an_index_that_is_cut_while_it_is_open_is_damaged(folder):
    """As by `cp` of another one. Through a memory map, the process would die of SIGBUS."""
    shard = opened(folder)
    assert shard.texts(1) == load_texts(store(folder, 1))
    os.truncate(folder / "shard-00000.index", 0)
    with pytest.raises(DamagedSample, match=r"video-1\.mp4: its words in the index do not have the checksum"):
        shard.texts(1)


def test_an_open_index_can_be_removed_and_closes_with_its_shard(folder):
    """A cache removes what was not used for long."""
    before = len(os.listdir("/proc/self/fd"))
    shard = opened(folder)
    (folder / "shard-00000.index").unlink()
    assert shard.texts(1) == load_texts(store(folder, 1))
    del shard
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("suffix", ["tar", "index"])
def test_a_vanished_file_is_named_and_is_no_damaged_sample(folder, suffix):
    (folder / f"shard-00000.{suffix}").unlink()
    with pytest.raises(BadInput, match=rf"set/shard-00000\.{suffix}: .*No such file") as caught:
        opened(folder).load(0)
    assert not isinstance(caught.value, DamagedSample)


def test_a_place_that_cannot_be_one_is_refused():
    with pytest.raises(BadInput, match=r"manifest\.json cannot be read: File name too long"):
        ShardSet.open("a" * 300)


def test_what_is_no_finished_set_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: not a set of shards: it has no manifest\.json"):
        ShardSet.open(tmp_path / "empty")
    write_settings(tmp_path / "empty", settings(3))
    with pytest.raises(BadInput, match="not all prepared"):
        ShardSet.open(tmp_path / "empty")


@pytest.mark.parametrize("name", [MANIFEST, SETTINGS])
def test_a_damaged_manifest_is_refused(folder, name):
    flip(folder / name, 40)
    with pytest.raises(BadInput, match=name):
        ShardSet.open(folder)


@pytest.mark.parametrize("name", [MANIFEST, SETTINGS])
def test_a_huge_file_is_not_read(folder, name):
    os.truncate(folder / name, 2**40)
    with pytest.raises(BadInput, match=f"{name} has {2**40} bytes; at most {2**30} are read"):
        ShardSet.open(folder)


def test_settings_of_another_set_are_refused(folder):
    """Spectrograms of FLAC shards would be computed with its settings."""
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text(text.replace('"fft_window_size": 1536', '"fft_window_size": 1024'))
    with pytest.raises(BadInput, match=r"settings\.json is damaged or of another set"):
        ShardSet.open(folder)


@pytest.mark.parametrize("changed", [{"start": -1e300}, {"words": [["a", 0, 1e39]]}, {"playback_speed": 4}])
def test_times_and_speeds_out_of_range_are_damage(folder, changed):
    """1e39 is infinite in float32, which training would stop at."""
    sample = opened(folder).sample(0, 0)
    with pytest.raises(BadInput, match="its JSON has times or a playback speed out of range"):
        _Text.parse(json.dumps(json.loads(sample.text) | changed).encode())


def npy(header: str, values: int = 2 * 188 * 64) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(values)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("(", "cannot be read"),
        ("'''", "cannot be read"),
        ("-" * 900 + "1", "cannot be read"),
        ("{'descr': ',', 'fortran_order': False, 'shape': (188, 64)}", "cannot be read"),
        ("{'descr': '<f2', 'fortran_order': False, 'shape': (10**15,)}", "cannot be read"),
        (f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({10**15},)}}", "is float16 .1000000000000000., not"),
        (f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({10**30}, 64)}}", "is float16 .10000.*, not float16"),
        ("{'descr': 'V99999999', 'fortran_order': False, 'shape': (188, 64)}", "is .*V99999999 .188, 64., not"),
        ("{'descr': '<f2', 'fortran_order': True, 'shape': (188, 64)}", "is float16"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (188, 64)}", "is object"),
    ],
)
def test_a_hostile_spectrogram_is_a_bad_input(header, message):
    """Whatever NumPy's parser would raise or allocate."""
    with pytest.raises(BadInput, match=f"its spectrogram {message}"):
        _spectrogram(npy(header), DATA)


@pytest.mark.parametrize("written_as", ["NumPy writes it", "others may write it"])
def test_a_spectrogram_of_another_length_is_a_bad_input(written_as):
    header = "{'descr': '<f2', 'fortran_order': False, 'shape': (188, 64)}"
    if written_as == "NumPy writes it":
        header = f"{header[:-1]}, }}".ljust(117) + "\n"
        assert npy(header).startswith(_usual_header((188, 64)))
    assert _spectrogram(npy(header), DATA).shape == (188, 64)
    for values in (0, 24063, 24066):
        with pytest.raises(BadInput, match=f"its spectrogram has {values} bytes, not 24064"):
            _spectrogram(npy(header, values), DATA)


@pytest.mark.parametrize("sound", [[], {}, None, "mp3"])
def test_an_index_of_unknown_sound_is_refused(folder, sound):
    path = folder / "shard-00000.index"
    with safe_open(path, framework="numpy") as file:
        tables, header = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["index"])  # noqa: SIM118
    save_file(tables, path, metadata={"index": json.dumps(header | {"sound": sound})})
    with pytest.raises(BadInput, match="not the index of a shard: its sound is"):
        ShardIndex(path)


@pytest.mark.parametrize("name", [MANIFEST, SETTINGS, "shard-00000.index", "shard-00000.tar"])
def test_a_pipe_does_not_block(folder, name):
    shard = None if name.endswith(("json", "index")) else opened(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BadInput, match="not a regular file"):
        shard.load(0) if shard else opened(folder) if name.endswith("index") else ShardSet.open(folder)
