import numpy as np
import pytest

from reserve.data.decode import choose_file_decoder
from reserve.synthetic.encoding import write_mp3, write_video

pytest.importorskip("av", reason="needs the extra video")

RATE = 22050
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def frames() -> list[np.ndarray]:
    """Ten frames, each of another grey."""
    return [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_frames_come_back_at_their_times(tmp_path, container):
    path = tmp_path / "video"
    write_video(path, iter(frames()), 5, TONE, RATE, container=container)
    with choose_file_decoder().open(path) as media:
        read = [frame.mean() for frame in media.frames([number / 5 + 0.1 for number in range(10)])]
        assert read == pytest.approx([20 * number for number in range(10)], abs=4)
        sound = media.soundtrack(sample_rate=RATE).waveform
    assert np.abs(sound[RATE // 2 : RATE] - TONE[RATE // 2 : RATE]).max() < 0.1


def test_a_video_without_sound_has_no_track(tmp_path):
    write_video(tmp_path / "video.mp4", frames(), 5, None, RATE)
    with choose_file_decoder().open(tmp_path / "video.mp4") as media:
        assert media.info.audio == ()


def test_mp3_keeps_the_sound_in_time(tmp_path):
    write_mp3(tmp_path / "sound.mp3", TONE, RATE)
    with choose_file_decoder().open(tmp_path / "sound.mp3") as media:
        sound = media.soundtrack(sample_rate=RATE).waveform
    assert len(sound) == pytest.approx(len(TONE), abs=2500)
    assert np.abs(sound[RATE // 2 : RATE] - TONE[RATE // 2 : RATE]).max() < 0.1
