"""The table of files and the decoders that they get."""

from __future__ import annotations

import pytest

from reserve.data import decode
from reserve.data.decode import candidates
from reserve.data.decode.explain import choose_for_file, file_table
from reserve.data.decode.pyav import PyAVDecoder
from tests.helpers.batch_decoder import PyAVInBatches
from tests.helpers.decoder_cases import SOUND
from tests.helpers.media_files import Sound, click_track, write_media


class NotForIt(PyAVInBatches):
    def unsuited(self, info):
        return f"{info.video.codec} is not for it"


def test_reasons_and_errors_stand_below_the_file(video, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (NotForIt(), PyAVDecoder()))
    bad = tmp_path / "bad\x1b.mp4"
    bad.write_bytes(b"no video")
    head, first, reason, second, error = file_table(
        [choose_for_file(path, candidates()) for path in (video, bad)]
    ).splitlines()
    assert head.split() == ["file", "codec", "size", "pixels", "pictures", "sound"]
    assert first.split() == [str(video), "h264", "64x48", "yuv420p", "pyav", "pyav"]
    assert reason == "    pictures not by pyav-in-batches: h264 is not for it"
    assert second.split()[1:] == ["-"] * 5
    assert "\x1b" not in second
    assert error.startswith("    error: not a media file")


@pytest.mark.parametrize("decoder", [PyAVInBatches(), PyAVDecoder()], ids=lambda decoder: decoder.name)
def test_first_that_is_for_the_file(video, monkeypatch, decoder):
    monkeypatch.setattr(decode, "DECODERS", (decoder, PyAVDecoder()))
    choice = choose_for_file(video, candidates())
    assert (str(choice.pictures), str(choice.sound), choice.error) == (decoder.name, "pyav", "")


def test_sound_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (PyAVDecoder(),))
    choice = choose_for_file(write_media(tmp_path / "a.m4a", sounds=[SOUND]), candidates())
    assert (choice.pictures, str(choice.sound), choice.size) == (None, "pyav", "")


def test_sound_that_starts_late_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (PyAVDecoder(),))
    late = Sound(click_track(2, [1.0]), start=12.0)
    path = write_media(tmp_path / "a.mkv", frame_times=[i / 2 for i in range(28)], sounds=[late])
    choice = choose_for_file(path, candidates())
    assert (str(choice.pictures), str(choice.sound), choice.error) == ("pyav", "pyav", "")
