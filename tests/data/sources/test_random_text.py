"""Random text from files and from other videos."""

from __future__ import annotations

import gzip
import json
import pickle
import re

import numpy as np
import pytest
import zstandard

from reserve.data.collection import StoreFiles
from reserve.data.sources.random_text import DRAW_CHARACTERS, FileTextSource, TranscriptTextSource, open_text_source
from reserve.data.store import save_segments
from reserve.data.types import Segments, Word
from reserve.errors import BadInput

EXAMPLE = [(0, 0), (0, 1)]


def rng(seed=0):
    return np.random.default_rng(seed)


def numbered(path, count=2000, to_line=lambda text: text):
    path.write_text("".join(to_line(f"line {number:05d} of the text") + "\n" for number in range(count)))
    return path


def numbers(text):
    return [int(word) for word in text.split() if word.isdigit()]


def as_json(text):
    return json.dumps({"text": text, "meta": {"n": 1}})


@pytest.mark.parametrize(("name", "to_line"), [("a.txt", str), ("a.jsonl", as_json)])
def test_consecutive_whole_lines_from_anywhere(tmp_path, name, to_line):
    source = FileTextSource(numbered(tmp_path / name, to_line=to_line))
    starts = set()
    for seed in range(60):
        text = source.draw(rng(seed), EXAMPLE)
        got = numbers(text)
        assert got == [(got[0] + i) % 2000 for i in range(len(got))]
        assert DRAW_CHARACTERS <= len(text) + 1 < DRAW_CHARACTERS + 30
        starts.add(got[0] // 200)
    assert len(starts) == 10


def test_short_file_is_drawn_whole_and_once(tmp_path):
    source = FileTextSource(numbered(tmp_path / "a.txt", 7))
    for seed in range(20):
        assert sorted(numbers(source.draw(rng(seed), EXAMPLE))) == list(range(7))


def test_stray_bytes_are_dropped(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"all of this is plain but for one caf\xe9\n" + b"plain\n" * 100)
    assert "for one caf" in FileTextSource(tmp_path / "a.txt").draw(rng(), EXAMPLE)


def test_one_line_without_end(tmp_path):
    (tmp_path / "a.txt").write_text("just  this")
    assert FileTextSource(tmp_path / "a.txt").draw(rng(), EXAMPLE) == "just this"


def test_bad_lines_of_jsonl_are_skipped(tmp_path):
    lines = [
        "{",
        "[]",
        '{"text": 3}',
        '{"text": ""}',
        "[" * 5000,
        '{"text": "good \\ud800 one"}',
        "\0",
        '{"other": "x"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert FileTextSource(tmp_path / "a.jsonl").draw(rng(), EXAMPLE) == "good one"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty file"),
        ("a.txt", bytes(10_000), "no UTF-8 text"),
        ("a.txt", b" \n\n \n", "no UTF-8 text"),
        ("a.jsonl", b"plain text\n" * 10, 'no JSON object with a "text"'),
        (
            "a.txt",
            "fermé à clé, très bientôt\n".encode("cp1252") * 50,
            "not UTF-8 text: 250 of its first 1300 bytes",
        ),
        ("a.jsonl.gz", gzip.compress(np.random.default_rng(0).bytes(20_000)), "not UTF-8 text"),
    ],
)
def test_useless_files(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{re.escape(str(tmp_path / name))}: {reason}"):
        open_text_source(tmp_path / name, tmp_path / "cache")


@pytest.mark.parametrize(("name", "reason"), [("", "a folder, not a file"), ("absent.txt.zst", "cannot be opened")])
def test_path_that_is_not_a_file_is_named(tmp_path, name, reason):
    with pytest.raises(BadInput, match=f"{re.escape(str(tmp_path / name))}: {reason}"):
        open_text_source(tmp_path / name, tmp_path / "cache")


def test_zstandard_is_unpacked_once(tmp_path):
    numbered(tmp_path / "a.jsonl", to_line=as_json)
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress((tmp_path / "a.jsonl").read_bytes()))
    source = open_text_source(tmp_path / "b.jsonl.zst", tmp_path / "cache")
    assert source.draw(rng(), EXAMPLE) == FileTextSource(tmp_path / "a.jsonl").draw(rng(), EXAMPLE)
    (unpacked,) = (tmp_path / "cache").iterdir()
    before = unpacked.stat().st_mtime_ns
    open_text_source(tmp_path / "b.jsonl.zst", tmp_path / "cache")
    assert unpacked.stat().st_mtime_ns == before


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"plain text\n", "no JSON object")])
def test_useless_file_in_zstandard(tmp_path, content, reason):
    """Named as the user did, not only as it is called in the cache."""
    packed = tmp_path / "a.jsonl.zst"
    packed.write_bytes(zstandard.compress(content))
    with pytest.raises(BadInput, match=rf"^{re.escape(str(packed))}, unpacked to .*a\.jsonl: {reason}"):
        open_text_source(packed, tmp_path / "cache")


@pytest.mark.parametrize("content", [b"not zstd at all", zstandard.compress(b"text " * 10_000)[:-4]])
def test_broken_zstandard(tmp_path, content):
    (tmp_path / "a.txt.zst").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.txt\.zst: .*zstd file"):
        open_text_source(tmp_path / "a.txt.zst", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_several_zstandard_frames(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one\n") + zstandard.compress(b"two\n"))
    text = open_text_source(tmp_path / "a.txt.zst", tmp_path / "cache").draw(rng(), EXAMPLE)
    assert sorted(text.split()) == ["one", "two"]


def stores(folder, *videos) -> StoreFiles:
    """Store files of videos, each a list of its segments' texts."""
    paths = []
    for index, texts in enumerate(videos):
        count = len(texts)
        segments = Segments(
            video_id=str(index),
            start=np.arange(count) * 5.0,
            playback_speed=np.ones(count, dtype=np.int32),
            frames=[b"x"] * count,
            log_mel=np.zeros((count, 188, 64), dtype=np.float16),
            words=[[Word(word, 0.0, 1.0) for word in text.split()] for text in texts],
        )
        paths.append(folder / f"{index}.safetensors")
        save_segments(segments, paths[-1])
    return StoreFiles(paths)


def test_draws_from_other_videos_only(tmp_path):
    source = TranscriptTextSource(stores(tmp_path, ["own"] * 4, ["b1", "b2"], ["c1", "c2", "c3"]))
    draws = [source.draw(rng(seed), EXAMPLE) for seed in range(50)]
    assert not any("own" in draw for draw in draws)
    assert {draw.split()[0] for draw in draws} == {"b1", "b2", "c1", "c2", "c3"}
    assert all(draw.endswith(("b1 b2", "c1 c2 c3")) for draw in draws)


def test_stops_at_the_requested_length(tmp_path):
    source = TranscriptTextSource(stores(tmp_path, ["own"], *[["word " * 400]] * 8))
    assert DRAW_CHARACTERS <= len(source.draw(rng(), EXAMPLE)) < 2 * DRAW_CHARACTERS


def test_example_of_all_videos_draws_from_unused_segments(tmp_path):
    source = TranscriptTextSource(stores(tmp_path, ["shown", "shown", "left"], ["shown"]))
    assert source.draw(rng(), [(0, 0), (0, 1), (1, 0)]) == "left"


def test_nothing_to_draw_from(tmp_path):
    source = TranscriptTextSource(stores(tmp_path, ["all", "shown"], [""]))
    with pytest.raises(BadInput, match="name a text file"):
        source.draw(rng(), EXAMPLE)


def test_other_collections_are_used_where_one_has_no_words_left(tmp_path):
    """As a shard of one video has."""
    for folder in ("own", "silent", "other"):
        (tmp_path / folder).mkdir()
    own = stores(tmp_path / "own", ["all", "shown"], ["", "left"])
    others = [stores(tmp_path / "silent", [""]), stores(tmp_path / "other", ["b1"], ["c1", "c2"])]
    source = TranscriptTextSource(own, lambda: others)
    shown = [(0, 0), (0, 1), (1, 0)]
    assert source.draw(rng(), shown) == "left"
    draws = {source.draw(rng(seed), [*shown, (1, 1)]) for seed in range(30)}
    assert {word for draw in draws for word in draw.split()} == {"b1", "c1", "c2"}


def test_sources_can_be_pickled(tmp_path):
    sources = [FileTextSource(numbered(tmp_path / "a.txt")), TranscriptTextSource(stores(tmp_path, ["a"], ["b"]))]
    for source in sources:
        assert pickle.loads(pickle.dumps(source)).draw(rng(5), EXAMPLE) == source.draw(rng(5), EXAMPLE)
