"""What every decoder must do, whatever library it uses: pictures, headers and text.

Decoders may differ in the rounding of colours, so pictures tell their own time.
"""

from __future__ import annotations

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode.protocol import FrameRequest, MediaLimits, VideoTrack
from reserve.data.images import encode_jpeg
from reserve.errors import BadInput
from tests.helpers.decoder_cases import CLICKS, RATE, SOUND, TIMES, frames, skip_unsuited
from tests.helpers.media_files import (
    SIZE,
    ExpiresAfter,
    Sound,
    click_track,
    find_clicks,
    number_picture,
    read_number,
    write_media,
)


@pytest.mark.parametrize(("picture", "sound"), [(6.0, 2.0), (2.0, 6.0), (6.0, 0.0)])
def test_duration_is_that_of_the_longer_of_picture_and_sound(file_decoder, tmp_path, picture, sound):
    sounds = [Sound(click_track(sound, [1.0]))] if sound else []
    path = write_media(tmp_path / "a.mkv", frame_times=np.arange(0, picture, 0.1).tolist(), sounds=sounds)
    with file_decoder.open(path) as media:
        assert media.duration() == pytest.approx(6.0, abs=0.1)
        assert [read_number(frame) for frame in media.frames([0.15])] == [1]
    with file_decoder.open(path, MediaLimits(max_duration=3.0)) as media:
        assert media.duration() == 3.0


class TestFrames:
    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
    def test_on_screen(self, decoder, folder, name, codec):
        path = folder / name
        if not path.exists():
            write_media(path, frame_times=TIMES, video_codec=codec)
        # Between frames, exactly on one, just before the next, the last one, and after the end.
        times = [0, 0.05, 0.1, 2.0, 2.05, 2.099, 5.9, 9]
        found = frames(decoder, path, times)
        assert [read_number(frame) for frame in found] == [0, 0, 1, 20, 20, 20, 59, 59]
        assert all(frame.shape == (*SIZE, 3) and frame.dtype == np.uint8 for frame in found)

    def test_variable_frame_rate(self, decoder, tmp_path):
        path = write_media(tmp_path / "a.mp4", frame_times=[0, 0.03, 0.5, 2.0, 2.04, 5.0, 5.5])
        found = frames(decoder, path, [0.02, 0.04, 0.499, 1.99, 2.03, 4.99, 5.2, 5.5])
        assert [read_number(frame) for frame in found] == [0, 1, 1, 2, 3, 4, 5, 6]

    def test_first_frame_is_shown_before_its_time(self, decoder, tmp_path):
        path = write_media(tmp_path / "a.mkv", frame_times=[2 + time for time in TIMES], sounds=[SOUND])
        found = frames(decoder, path, [0.5, 2.05, 3.05])
        assert [read_number(frame) for frame in found] == [0, 0, 10]

    def test_time_zero_is_the_start_of_the_file(self, decoder, tmp_path):
        path = write_media(tmp_path / "a.mkv", frame_times=[7 + time for time in TIMES])
        assert [read_number(frame) for frame in frames(decoder, path, [0.05, 3.05])] == [0, 30]

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [
            ((1, 0, 0, 1), lambda image: image),
            ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
            ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
            ((0, -1, 1, 0), lambda image: np.rot90(image)),
            ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
            ((1, 0, 0, -1), lambda image: image[::-1]),
            ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
            ((0, -1, -1, 0), lambda image: np.rot90(image.transpose(1, 0, 2), 2)),
            ((2, 0, 0, 2), lambda image: image),  # a scale says nothing about the sides
            ((0.9, 0.4, -0.4, 0.9), lambda image: image),  # nearer to upright than to any other
            ((0, 0, 0, 0), lambda image: image),
        ],
        ids=lambda value: str(value) if isinstance(value, tuple) else "",
    )
    def test_display_matrix(self, decoder, tmp_path, matrix, expected):
        """All ways to turn and mirror a picture, as phones and editors write them."""
        picture = np.zeros((*SIZE, 3), dtype=np.uint8)
        picture[:16, :16] = 255
        picture[:16, -16:] = 128
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5], picture=lambda _: picture)
        content = bytearray(path.read_bytes())
        a, b, c, d = (round(value * 65536) for value in matrix)
        place = content.index(b"tkhd") + 44
        content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
        (frame,) = frames(decoder, path, [0])
        right = expected(picture)
        assert frame.shape == right.shape
        assert np.abs(frame.astype(int) - right).mean() < 8

    @pytest.mark.parametrize(
        ("pixel_aspect", "size"),
        [
            (Fraction(64, 45), (48, 91)),
            (Fraction(1, 2), (96, 64)),
            (Fraction(1), (48, 64)),
            (Fraction(0), (48, 64)),
            (Fraction(255, 1), (48, 64)),  # no format has such pixels
        ],
    )
    def test_pixels_become_square(self, decoder, tmp_path, pixel_aspect, size):
        path = write_media(tmp_path / "a.mkv", frame_times=TIMES[:5], pixel_aspect=pixel_aspect)
        (frame,) = frames(decoder, path, [0.35])
        assert frame.shape == (*size, 3)
        assert read_number(frame) == 3

    def test_turned_picture_with_pixels_that_are_not_square(self, decoder, tmp_path):
        """Pixels are stretched as stored, then turned."""
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5], pixel_aspect=Fraction(2))
        content = bytearray(path.read_bytes())
        place = content.index(b"tkhd") + 44
        content[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        path.write_bytes(content)
        (frame,) = frames(decoder, path, [0.35])
        assert frame.shape == (128, 48, 3)
        assert read_number(np.rot90(frame)) == 3

    @pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
    def test_container_without_presentation_times(self, decoder, tmp_path, codec):
        """AVI knows the order of decoding alone, which B-frames change."""
        path = write_media(
            tmp_path / "a.avi",
            frame_times=[index / 10 for index in range(60)],
            tick=Fraction(1, 10),
            video_codec=codec,
        )
        times = [0.05, 0.15, 0.25, 0.35, 2.05, 4.55, 4.65, 5.85]
        assert [read_number(frame) for frame in frames(decoder, path, times)] == [0, 1, 2, 3, 20, 45, 46, 58]

    def test_start_cut_off_by_an_edit_list(self, decoder, tmp_path):
        """What an editor trimmed is in the file, since the rest needs its key frame, but is not shown."""
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES, gop=50)
        content = bytearray(path.read_bytes())
        place = content.index(b"elst") + 12
        duration, start, rate = struct.unpack(">IiI", content[place : place + 12])
        with av.open(str(path)) as container:
            start += round(2.3 / container.streams.video[0].time_base)
        content[place : place + 12] = struct.pack(">IiI", duration - 2300, start, rate)
        path.write_bytes(content)
        times = [0.05, 1.05, 2.65, 2.75, 3.55]
        assert [read_number(frame) for frame in frames(decoder, path, times)] == [23, 33, 49, 50, 58]

    def test_a_tick_as_long_as_a_frame(self, decoder, tmp_path):
        """No slack beyond rounding: half a tick would be half a picture here."""
        path = write_media(
            tmp_path / "a.avi",
            frame_times=[index / 5 for index in range(20)],
            tick=Fraction(1, 5),
            video_codec="mpeg4",
        )
        times = [0.1, 0.19, 0.2, 0.35, 0.399, 0.4, 1.0 - 1e-5, 1.0, 3 * 0.2, 0.6000001, 2.55]
        numbers = [read_number(frame) for frame in frames(decoder, path, sorted(times))]
        assert numbers == [0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 12]

    @pytest.mark.parametrize(
        ("times", "reason"), [([1, 0.5], "must not decrease"), ([-1], "finite and >= 0"), ([np.inf], "finite and >= 0")]
    )
    def test_bad_times(self, decoder, video, times, reason):
        with pytest.raises(ValueError, match=reason):
            frames(decoder, video, times)

    def test_beyond_the_limits(self, decoder, video):
        with pytest.raises(BadInput, match="64x48"):
            frames(decoder, video, [0], MediaLimits(max_pixels=1000))

    def test_sound_alone_has_none(self, decoder, tmp_path):
        with pytest.raises(BadInput, match="no video stream"):
            frames(decoder, write_media(tmp_path / "a.mp4", sounds=[SOUND]), [0])

    def test_cover_picture_is_no_video(self, decoder, tmp_path):
        path = write_media(tmp_path / "a.mp3", sounds=[Sound(click_track(2, [0.5]), codec="libmp3lame")])
        picture = b"\0image/jpeg\0\x03\0" + encode_jpeg(number_picture(1))
        frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
        size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
        path.write_bytes(b"ID3\x03\0\0" + size + frame + path.read_bytes())
        with pytest.raises(BadInput, match="no video stream"):
            frames(decoder, path, [0])

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("empty.mp4", b"", "empty file"),
            ("noise.mp4", np.random.default_rng(0).bytes(20_000), "not a media file"),
            ("script.mp4", b"#!/bin/sh\nrm -rf /\n" * 100, "not a media file"),
            (
                "playlist.mp4",
                b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ngood.ts\n#EXT-X-ENDLIST\n",
                "not a media file",
            ),
            ("concat.mp4", b"ffconcat version 1.0\nfile good.ts\n", "not a media file"),
            ("huge.y4m", b"YUV4MPEG2 W9000 H9000 F25:1 Ip C420\nFRAME\n" + bytes(500_000), "9000x9000"),
        ],
    )
    def test_hostile_file(self, decoder, tmp_path, name, content, reason):
        write_media(tmp_path / "good.ts", frame_times=TIMES[:5])
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=reason):
            frames(decoder, tmp_path / name, [0])

    def test_truncated_file_keeps_its_last_frame(self, decoder, tmp_path):
        path = write_media(tmp_path / "a.mkv", frame_times=TIMES)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        first, last = (read_number(frame) for frame in frames(decoder, path, [0.55, 5.85]))
        assert first == 5
        assert 10 < last < 50

    def test_absent_file(self, decoder, tmp_path):
        with pytest.raises(BadInput, match="cannot be opened"):
            frames(decoder, tmp_path / "absent.mp4", [0])

    def test_pipe_does_not_block(self, decoder, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(BadInput, match="not a regular file"):
            frames(decoder, tmp_path / "pipe.mp4", [0])

    def test_time_limit(self, decoder, video):
        with pytest.raises(BadInput, match="decoding took more than"):
            frames(decoder, video, [3], MediaLimits(max_decode_seconds=1e-9))

    def test_bad_file_costs_its_batch_nothing(self, batch_decoder, video, tmp_path):
        skip_unsuited(batch_decoder, video)
        (tmp_path / "bad.mp4").write_bytes(b"x")
        paths = [video, tmp_path / "bad.mp4", video]
        found = []
        for decoded in batch_decoder.frames_of([FrameRequest(path, (2.05, 4.05), MediaLimits()) for path in paths]):
            try:
                found.append([read_number(frame) for frame in decoded])
            except BadInput as error:
                found.append(str(error)[:16])
        assert found == [[20, 40], "not a media file", [20, 40]]


class TestInfo:
    def test_tracks(self, file_decoder, video):
        with file_decoder.open(video) as media:
            found = media.info.video
            assert found == VideoTrack(True, SIZE[1], SIZE[0], "h264", found.profile, "yuv420p")
            assert found.profile
            assert [track.decodable for track in media.info.audio] == [True]
            (text,) = media.info.text
            assert (text.decodable, text.is_forced, text.is_pictures) == (True, False, False)

    def test_sound_alone(self, file_decoder, tmp_path):
        with file_decoder.open(write_media(tmp_path / "a.m4a", sounds=[SOUND, SOUND])) as media:
            assert media.info.video is None
            assert (len(media.info.audio), len(media.info.text)) == (2, 0)


class TestText:
    def test_cues(self, file_decoder, video):
        with file_decoder.open(video) as media:
            cues = media.cues(0)
        assert [(cue.start, cue.end, cue.lines) for cue in cues] == [(1, 2, ("one two",)), (2.5, 3, ("three",))]

    def test_no_such_track(self, file_decoder, video):
        with file_decoder.open(video) as media, pytest.raises(BadInput, match="no text track 1: it has 1"):
            media.cues(1)


def test_any_order_of_calls(file_decoder, video):
    with file_decoder.open(video) as media:
        for _ in range(2):
            assert [read_number(frame) for frame in media.frames([1.05, 4.05])] == [10, 40]
            assert find_clicks(media.sound(5, 6), RATE) == pytest.approx([0.5], abs=0.002)
            assert len(media.cues(0)) == 2
            assert find_clicks(media.soundtrack().waveform, RATE) == pytest.approx(CLICKS, abs=0.002)
            assert [read_number(frame) for frame in media.frames([0])] == [0]


@pytest.mark.parametrize("job", ["frames", "soundtrack", "sound", "cues"])
def test_deadline(file_decoder, video, job):
    jobs = {
        "frames": lambda media: list(media.frames([3])),
        "soundtrack": lambda media: media.soundtrack(),
        "sound": lambda media: media.sound(3, 6),
        "cues": lambda media: media.cues(0),
    }
    with file_decoder.open(video, deadline=ExpiresAfter(3)) as media, pytest.raises(BadInput, match="expired"):
        jobs[job](media)


def test_name_that_looks_like_a_url(file_decoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "concat:a.mp4", frame_times=TIMES[:5])
    with file_decoder.open("concat:a.mp4") as media:
        assert [read_number(frame) for frame in media.frames([0.25])] == [2]
