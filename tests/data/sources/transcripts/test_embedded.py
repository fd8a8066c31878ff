"""Text tracks inside containers."""

from __future__ import annotations

import pytest

from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.sources.transcripts import load_embedded_transcript
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


def test_karaoke_gives_word_times(tmp_path):
    """A track of ASS as FFmpeg hands it over."""
    head = (
        "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    )
    lines = [
        f"Dialogue: 0,0:00:0{start}.00,0:00:0{start + 2}.00,Default,,0,0,0,,{{\\k50}}one {{\\k100}}two {{\\k50}}three\n"
        for start in (1, 4)
    ]
    (tmp_path / "a.ass").write_text(head + "".join(lines))
    words = embedded(tmp_path / "a.ass")
    assert [(word.text, word.start) for word in words[:3]] == [("one", 1.0), ("two", 1.5), ("three", 2.5)]
