"""The page of shards: complete, self-contained, and safe against hostile text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reserve.data.shards.manifest import finish_set
from reserve.data.shards.records import SkippedFile, write_settings
from reserve.data.shards.write import write_shard
from reserve.data.store import load_segments, save_segments
from reserve.data.types import VideoMetadata, Word
from reserve.errors import BadInput
from reserve.report.shard_page import write_shard_page
from tests.helpers.html_page import Page
from tests.helpers.small_shards import make_shard_set, settings, store_piece
from tests.helpers.small_stores import make_segments

HOSTILE = "<script>alert(1)</script>\"'>&{{ 7 * 7 }}</dl><img src=x onerror=alert(1)>\ud800\x1b[2J"


@pytest.fixture
def folder(tmp_path):
    make_shard_set(tmp_path / "set", (3, 0, 2), 4)
    return tmp_path / "set"


def page_of(folder, **options):
    out = write_shard_page(folder, folder.parent / "page.html", **options)
    text = out.read_text("utf-8")
    return text, Page(text)


@pytest.mark.parametrize("sound", ["log_mel", "flac"])
def test_a_set(tmp_path, sound):
    make_shard_set(tmp_path / "set", (3, 0, 2), 4, sound)
    text, page = page_of(tmp_path / "set")
    assert page.count("details") == 5
    assert page.count("img") == 5 * 4 * 2
    assert page.count("audio") == (20 if sound == "flac" else 0)
    for video in range(5):
        assert f"video-{video}.mp4" in page.text
    words = load_segments(tmp_path / "set-stores" / "video-4.safetensors").words
    assert all(word.text in page.text for part in words for word in part)
    assert "title 3" in page.text
    assert "http" not in text.replace("http-equiv", "")


def test_pictures_and_sound_are_embedded(tmp_path):
    make_shard_set(tmp_path / "set", (1,), 2, "flac")
    _, page = page_of(tmp_path / "set")
    sources = [found["src"] for tag, found in page.elements if "src" in found]
    assert {source.partition(";")[0] for source in sources} == {"data:image/jpeg", "data:image/png", "data:audio/flac"}
    assert not page.count("script")
    assert not page.count("link")


def test_videos_are_spread_over_the_shards(folder):
    _, page = page_of(folder, videos=2)
    assert [text for text in page.text if text.startswith("video-")] == ["video-0.mp4", "video-2.mp4"]


def test_segments_are_spread_over_the_video(folder):
    text, page = page_of(folder, videos=1, segments=2)
    assert page.count("figure") == 2
    assert "segment 0, from" in text
    assert "segment 2, from" in text
    assert "2 of its 4 segments, evenly spaced" in text


def test_one_shard_of_an_unfinished_set(folder):
    (folder / "manifest.json").unlink()
    _, page = page_of(folder / "shard-00002.tar")
    assert "shard-00002" in page.text
    assert any("One of the 3 shards of set" in text for text in page.text)
    assert page.count("details") == 2
    _, page = page_of(folder / "shard-00001.tar")
    assert page.count("details") == 0


def test_one_video_by_its_id(folder):
    _, page = page_of(folder / "shard-00000.tar", video="video-1.mp4")
    assert [text for text in page.text if text.startswith("video-")] == ["video-1.mp4"]
    with pytest.raises(BadInput, match=r"there is no video 'video-4\.mp4' in shard-00000"):
        page_of(folder / "shard-00000.tar", video="video-4.mp4")
    with pytest.raises(BadInput, match="there is no video"):
        page_of(folder, video="nothing.mp4")


def hostile_set(folder):
    """A set of one shard whose every text is hostile."""
    folder.mkdir()
    segments = replace(make_segments(0, 2, first_number=0), video_id=HOSTILE.replace("\ud800", ""))
    segments.metadata = VideoMetadata(HOSTILE, HOSTILE * 500, (HOSTILE,) * 3)
    segments.words[0] = [Word(HOSTILE, 0.1, 0.3), *[Word("x" * 9000, 1.0, 2.0)] * 300]
    save_segments(segments, folder.parent / "hostile.safetensors")
    piece = store_piece(folder.parent / "hostile.safetensors")
    record = replace(piece.record, transcript=HOSTILE, audio=HOSTILE, warnings=(HOSTILE,), file=HOSTILE)
    skipped = [SkippedFile(f"{HOSTILE}{n}", HOSTILE, "key", HOSTILE * 500, HOSTILE) for n in range(200)]
    hostile = replace(settings(1), decoders=(HOSTILE,), filter={"max_static_share": HOSTILE, "languages": [HOSTILE]})
    write_settings(folder, hostile)
    write_shard(folder, 0, [replace(piece, record=record)], skipped, sound="log_mel")
    finish_set(folder)


@pytest.mark.parametrize("where", ["", "shard-00000.tar"])
def test_hostile_text_is_escaped(tmp_path, where):
    hostile_set(tmp_path / "set")
    out = write_shard_page(tmp_path / "set" / where, tmp_path / "page.html")
    text = out.read_text("utf-8")
    page = Page(text)
    assert not page.count("script")
    assert not any("onerror" in found for _, found in page.elements)
    assert page.count("img") == 4
    assert "{{ 7 * 7 }}" in text
    assert len(text) < 1_000_000
    assert "and 181 words more" in text


def test_damaged_samples_are_shown_as_such(folder):
    tar = folder / "shard-00000.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    text, page = page_of(folder, videos=1)
    assert page.count("figure") == 3
    assert "segment 0 is damaged: its bytes do not have the checksum of the index" in text
    tar.unlink()
    with pytest.raises(BadInput, match="No such file"):
        page_of(folder, videos=1)


def test_what_is_skipped_is_shown_with_its_reason(folder):
    skipped = SkippedFile("a/talk.mp4", "talk.mp4", "key", "duplicate of b/talk.mp4", "duplicates")
    write_shard(folder, 1, [], [skipped], sound="log_mel")
    finish_set(folder)
    _, page = page_of(folder / "shard-00001.tar")
    assert "duplicate of b/talk.mp4" in page.text
    with pytest.raises(BadInput, match=r"a/talk\.mp4 was skipped: duplicate of b/talk\.mp4"):
        page_of(folder / "shard-00001.tar", video="a/talk.mp4")


@pytest.mark.parametrize("where", ["", "shard-00000.tar", "shard-00007.tar", "set/shard-00007.tar", "other.tar"])
def test_what_is_no_shard(folder, where):
    with pytest.raises(BadInput):
        write_shard_page(folder.parent / where, folder.parent / "page.html")
    assert not (folder.parent / "page.html").exists()
