from __future__ import annotations

import numpy as np
import pytest

from reserve.data.sound_file import read_sound
from reserve.data.video import open_video
from reserve.errors import BadInput
from tests.helpers.media_files import Sound, click_track, find_clicks, write_media

pytest.importorskip("av")


def test_a_videos_sound_is_the_waveform_of_the_video(tmp_path):
    path = write_media(tmp_path / "video.mp4", frame_times=range(4), sounds=[Sound(click_track(4, [1.0, 2.5]))])
    sound = read_sound(path)
    np.testing.assert_array_equal(sound, open_video(path).waveform)
    assert find_clicks(sound, 22050) == pytest.approx([1.0, 2.5], abs=0.03)


def test_a_file_of_sound_alone_is_read(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "clicks.wav", click_track(3, [0.5, 2.0], rate=16000), 16000)
    assert find_clicks(read_sound(tmp_path / "clicks.wav"), 22050) == pytest.approx([0.5, 2.0], abs=0.03)


def test_what_has_no_sound_is_refused(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", frame_times=range(4))
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    with pytest.raises(BadInput, match=r"silent\.mp4: it has no sound"):
        read_sound(silent)
    with pytest.raises(BadInput, match=r"noise\.wav: "):
        read_sound(tmp_path / "noise.wav")
    with pytest.raises(BadInput, match=r"absent\.wav: cannot be opened"):
        read_sound(tmp_path / "absent.wav")
