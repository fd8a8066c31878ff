"""Text tracks inside containers."""

from __future__ import annotations

import pytest

from reserve.data.decode.protocol import TextTrack
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.sources.transcripts import load_embedded_transcript, rank_text_tracks, track_name
from reserve.errors import BadInput
from tests.helpers.media_files import write_media

TIMES = [index / 10 for index in range(40)]


def embedded(path):
    with PyAVDecoder().open(path) as media:
        return load_embedded_transcript(media, 0)


def test_mov_text(tmp_path):
    cues = [(1, 2, "hello <i>there</i>"), (2.5, 3, "[Music]\nyou")]
    words = embedded(write_media(tmp_path / "a.mp4", frame_times=TIMES, cues=cues))
    assert [word.text for word in words] == ["hello", "there", "you"]
    assert [word.start for word in words] == pytest.approx([1, 1.5, 2.5])
    assert words[-1].end == pytest.approx(3)


def test_spaces_as_ass_writes_them(tmp_path):
    cues = [(1, 2, r"hello\hthere\N\h\hmy\nfriend")]
    words = embedded(write_media(tmp_path / "a.mp4", frame_times=TIMES, cues=cues))
    assert [word.text for word in words] == ["hello", "there", "my", "friend"]


def test_implausible_track(tmp_path):
    with pytest.raises(BadInput, match="no words in it"):
        embedded(write_media(tmp_path / "a.mp4", frame_times=TIMES, cues=[(1, 2, "[Music]")]))


@pytest.mark.parametrize("name", ["mov_text_stream.mp4", "webvtt_stream.mkv"])
def test_real_tracks(shared_dir, name):
    words = embedded(shared_dir / "realdata" / "video_open" / "codec" / name)
    assert [word.text for word in words] == ["oop", "boop"]


PLAIN = TextTrack(language="eng")


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (TextTrack(language="ger"), PLAIN),
        (TextTrack(language="ger", is_default=True), PLAIN),
        (TextTrack(language="ger", is_default=True), TextTrack()),  # without a language
        (TextTrack(language="ger", is_default=True), TextTrack(language="und")),
        (TextTrack(language="eng", is_forced=True, is_default=True), PLAIN),
        (TextTrack(language="eng", is_forced=True), TextTrack(language="ger")),
        (TextTrack(language="eng", is_comment=True), PLAIN),
        (TextTrack(language="eng", title="Signs & Songs", is_default=True), PLAIN),
        (TextTrack(language="eng", title="Forced", is_default=True), PLAIN),
        (TextTrack(language="eng", title="Director's Commentary"), PLAIN),
        (PLAIN, TextTrack(language="eng", is_default=True)),
        (TextTrack(language="eng", title="English (SDH)"), PLAIN),
        (TextTrack(language="eng", is_hearing_impaired=True), PLAIN),
        (TextTrack(language="eng", title="auto-generated", is_default=True), PLAIN),
    ],
)
def test_order_of_tracks(worse, better):
    assert rank_text_tracks([worse, better], ["en"]) == [1, 0]
    assert rank_text_tracks([better, worse], ["en"]) == [0, 1]


def test_equal_tracks_keep_their_order():
    assert rank_text_tracks([PLAIN] * 3, ["en"]) == [0, 1, 2]


def test_wanted_languages_come_in_their_order():
    tracks = [TextTrack(language=code) for code in ("eng", "spa", "ger", "fre")]
    assert rank_text_tracks(tracks, ["de", "French", "eng"]) == [2, 3, 0, 1]


def test_names():
    assert track_name(2, TextTrack(language="ger", title=" Signs\n& Songs ")) == "text track 2 (ger, Signs & Songs)"
    assert track_name(0, TextTrack()) == "text track 0"
