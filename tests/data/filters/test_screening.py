"""Which videos the filters skip, with what reason."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from reserve.config import FilterConfig
from reserve.data.filters import FILTERS, Screening, check_filters, find_duplicates, screen_store, screening
from reserve.data.images import encode_jpeg
from reserve.data.store import save_segments
from reserve.data.types import Choice, Word
from reserve.errors import BadInput
from tests.helpers.drawn_videos import drawn_video
from tests.helpers.small_stores import make_segments


def stored(folder, segments, transcript="a.vtt"):
    save_segments(segments, folder / "a.safetensors", choice=Choice(transcript=transcript))
    return folder / "a.safetensors"


def grainy_still(seed):
    noise = np.random.default_rng(seed).normal(size=(72, 128, 3)) * 6
    ramp = np.linspace(40, 220, 128)[None, :, None]
    return encode_jpeg(np.clip(ramp + noise, 0, 255).astype(np.uint8), 40)


def words_of(count):
    return [Word(f"word{n}", n / 100, n / 100 + 0.01) for n in range(count)]


def test_a_talking_video_is_kept_with_a_signature(tmp_path):
    video = drawn_video(0, "story.mp4")
    found = screen_store(stored(tmp_path, video), FilterConfig(languages=("en",)))
    assert found == Screening(signature=found.signature)
    assert found.signature
    assert not screen_store(stored(tmp_path, video), FilterConfig(duplicates=False)).signature


def test_one_picture_is_skipped(tmp_path):
    video = make_segments(0, 8, first_number=0)
    video.frames = [grainy_still(n) for n in range(8)]
    assert screen_store(stored(tmp_path, video), FilterConfig()) == Screening(
        "static", "7 of its 7 neighbouring frames show the same picture; filter.max_static_share is 0.95"
    )
    assert screen_store(stored(tmp_path, video), FilterConfig(max_static_share=1.0)).filter == ""
    # One change among few frames.
    video.frames[3:] = [make_segments(0, 1, first_number=5).frames[0]] * 5
    assert screen_store(stored(tmp_path, video), FilterConfig()).filter == ""
    assert screen_store(stored(tmp_path, video), FilterConfig(max_static_share=0.8)).filter == "static"


def test_a_single_segment_has_no_neighbours(tmp_path):
    assert screen_store(stored(tmp_path, make_segments(0, 1, first_number=0)), FilterConfig()).filter == ""
    assert screen_store(stored(tmp_path, make_segments(0, 1, first_number=0)), FilterConfig(max_static_share=0)) == (
        Screening(signature="")
    )


def test_words_are_counted_a_minute_of_video(tmp_path):
    video = make_segments(0, 4, first_number=0)
    video.playback_speed = np.array([3, 3, 1, 1], np.int32)  # 40 s
    video.words = [words_of(1), [], words_of(1), []]
    assert screen_store(stored(tmp_path, video), FilterConfig()) == Screening(
        "few_words", "3.0 words a minute; filter.min_words_per_minute is 4"
    )
    assert screen_store(stored(tmp_path, video), FilterConfig(min_words_per_minute=3.0)).filter == ""
    assert screen_store(stored(tmp_path, video), FilterConfig(min_words_per_minute=0)).filter == ""


def test_minutes_without_words_count_too(tmp_path):
    """Segments are cut where words are: the few words of a long video may lie in one segment."""
    video = make_segments(0, 1, first_number=0)
    video.words = [words_of(5)]
    path = tmp_path / "a.safetensors"
    save_segments(video, path, choice=Choice(transcript="a.vtt"), seconds=80.0)
    assert screen_store(path, FilterConfig()) == Screening(
        "few_words", "3.8 words a minute; filter.min_words_per_minute is 4"
    )
    save_segments(video, path, choice=Choice(transcript="a.vtt"), seconds=60.0)
    assert screen_store(path, FilterConfig()).filter == ""


def test_other_languages_are_skipped(tmp_path):
    video = replace(drawn_video(0, "story.mp4"), video_id="folder/a.mp4")
    german = FilterConfig(languages=("German", "fr"))
    assert screen_store(stored(tmp_path, video), german) == Screening(
        "language", "in language en by its words; filter.languages allows German, fr"
    )
    assert screen_store(stored(tmp_path, video, "a.de.vtt"), german).filter == ""
    assert screen_store(stored(tmp_path, video, "a.ja.vtt"), FilterConfig(languages=("en",))).reason.startswith(
        "in language ja by the label of a.ja.vtt"
    )


def test_the_first_filter_counts(tmp_path):
    video = make_segments(0, 3, first_number=0)
    video.frames, video.words = [grainy_still(0)] * 3, [[], [], []]
    everything = FilterConfig(languages=("de",))
    assert screen_store(stored(tmp_path, video, "video-0.en.vtt"), everything).filter == FILTERS[0]
    video.words = [words_of(3)] * 3
    assert screen_store(stored(tmp_path, video, "video-0.en.vtt"), everything).filter == FILTERS[1]
    assert screen_store(stored(tmp_path, video), everything).filter == FILTERS[2]


def test_pieces_do_not_change_the_result(tmp_path, monkeypatch):
    path = stored(tmp_path, drawn_video(1, "story.mp4"))
    whole = screen_store(path, FilterConfig())
    static = screen_store(path, FilterConfig(max_static_share=0.0))
    monkeypatch.setattr(screening, "_PIECE", 3)
    assert screen_store(path, FilterConfig()) == whole
    assert screen_store(path, FilterConfig(max_static_share=0.0)) == static


def test_copies_by_their_stores(tmp_path):
    signatures = []
    for name, changes in (("a.mp4", {}), ("b.mp4", {"cut": 1.4, "quality": 40})):
        video = drawn_video(2, name, **changes)
        signatures.append((name, len(video), screen_store(stored(tmp_path, video), FilterConfig()).signature))
    assert len(find_duplicates(signatures)) == 1


@pytest.mark.parametrize("damage", ["cut", "frame"])
def test_a_damaged_store_is_named(tmp_path, damage):
    path = stored(tmp_path, make_segments(0, 3, first_number=0))
    content = path.read_bytes()
    start = content.index(b"\xff\xd8\xff")
    path.write_bytes(content[:-50] if damage == "cut" else content[:start] + bytes(40) + content[start + 40 :])
    with pytest.raises(BadInput, match=r"a\.safetensors: .*delete it"):
        screen_store(path, FilterConfig())


def test_settings_are_checked_before_any_work(monkeypatch):
    check_filters(FilterConfig())
    check_filters(FilterConfig(languages=("en",)))
    with pytest.raises(ValueError, match=r"filter\.languages must hold languages.*'xx1'"):
        check_filters(FilterConfig(languages=("xx1",)))
    monkeypatch.setitem(sys.modules, "py3langid", None)
    check_filters(FilterConfig())
    with pytest.raises(ModuleNotFoundError):
        check_filters(FilterConfig(languages=("en",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_static_share": 1.2}, r"filter\.max_static_share must be in \[0, 1\]; got 1\.2"),
        ({"min_words_per_minute": -1.0}, r"filter\.min_words_per_minute must be at least 0; got -1"),
        ({"languages": ("en", " ")}, r"filter\.languages must hold"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        FilterConfig(**settings)
