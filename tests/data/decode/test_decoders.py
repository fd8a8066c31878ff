"""What every decoder must do, whatever library it uses. These tests cover a new row of DECODERS by themselves.

Decoders may differ in the rounding of colours and samples, so pictures and sounds tell their own time.
"""

from __future__ import annotations

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode import DECODERS
from reserve.data.decode.protocol import BatchDecoder, FileDecoder, FrameRequest, MediaLimits, VideoTrack
from reserve.data.images import encode_jpeg
from reserve.errors import BadInput
from tests.helpers.batch_decoder import PyAVInBatches
from tests.helpers.media_files import (
    SIZE,
    ExpiresAfter,
    Sound,
    click_track,
    find_clicks,
    number_picture,
    read_number,
    write_media,
    write_wave,
)

RATE = 22050
CLICKS = [0.5, 2.0, 5.5]
TIMES = [index / 10 for index in range(60)]
SOUND = Sound(click_track(6, CLICKS))


ALL = (*DECODERS, PyAVInBatches())


@pytest.fixture(params=ALL, ids=lambda decoder: decoder.name)
def decoder(request):
    return available(request.param)


@pytest.fixture(params=[d for d in ALL if isinstance(d, FileDecoder)], ids=lambda decoder: decoder.name)
def file_decoder(request):
    return available(request.param)


@pytest.fixture(params=[d for d in ALL if isinstance(d, BatchDecoder)], ids=lambda decoder: decoder.name)
def batch_decoder(request):
    return available(request.param)


def available(decoder):
    if (reason := decoder.unavailable()) is not None:
        pytest.skip(f"{decoder.name}: {reason}")
    return decoder


def frames(decoder, path, times, limits=None):
    limits = limits or MediaLimits()
    if isinstance(decoder, FileDecoder):
        with decoder.open(path, limits) as media:
            return list(media.frames(times))
    (found,) = map(list, decoder.frames_of([FrameRequest(path, tuple(times), limits)]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def video(folder):
    """Six seconds of picture and sound with captions."""
    cues = [(1, 2, "one two"), (2.5, 3, "three")]
    return write_media(folder / "video.mp4", frame_times=TIMES, sounds=[SOUND], cues=cues)


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
            assert media.info.video == VideoTrack(True, SIZE[1], SIZE[0])
            assert [track.decodable for track in media.info.audio] == [True]
            (text,) = media.info.text
            assert (text.decodable, text.is_forced, text.is_pictures) == (True, False, False)

    def test_sound_alone(self, file_decoder, tmp_path):
        with file_decoder.open(write_media(tmp_path / "a.m4a", sounds=[SOUND, SOUND])) as media:
            assert media.info.video is None
            assert (len(media.info.audio), len(media.info.text)) == (2, 0)


class TestSound:
    @pytest.mark.parametrize(
        ("name", "codec", "rate"), [("a.mp4", "aac", 44100), ("a.mkv", "flac", 96000), ("a.webm", "libopus", 48000)]
    )
    def test_clicks_stay_in_place(self, file_decoder, tmp_path, name, codec, rate):
        path = write_media(tmp_path / name, sounds=[Sound(click_track(6, CLICKS, rate), rate, codec=codec)])
        with file_decoder.open(path) as media:
            track = media.soundtrack()
        assert (track.waveform.dtype, track.sample_rate) == (np.float32, RATE)
        assert len(track.waveform) == pytest.approx(6 * RATE, rel=0.01)
        assert find_clicks(track.waveform, RATE) == pytest.approx(CLICKS, abs=0.002)

    def test_late_sound_follows_silence(self, file_decoder, tmp_path):
        sounds = [Sound(click_track(4, [0.5]), start=1.5)]
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)) as media:
            waveform = media.soundtrack().waveform
        assert find_clicks(waveform, RATE) == pytest.approx([2.0], abs=0.002)
        assert not waveform[: int(1.4 * RATE)].any()

    def test_choice_of_track(self, file_decoder, tmp_path):
        sounds = [Sound(click_track(6, [1.0])), Sound(click_track(6, [4.0]), layout="stereo")]
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)) as media:
            for track, click in enumerate([1.0, 4.0]):
                assert find_clicks(media.soundtrack(track=track).waveform, RATE) == pytest.approx([click], abs=0.002)
                assert find_clicks(media.sound(0, 6, track=track), RATE) == pytest.approx([click], abs=0.002)
            for decode in (lambda: media.soundtrack(track=2), lambda: media.sound(0, 1, track=2)):
                with pytest.raises(BadInput, match="no audio track 2: it has 2, counted from 0"):
                    decode()

    @pytest.mark.parametrize(
        ("channels", "mask"),
        [(1, 0x4), (2, 0x3), (6, 0x3F), (8, 0x63F), (1, 0), (2, 0), (3, 0), (6, 0), (9, 0), (16, 0), (17, 0)],
    )
    def test_equal_channels_keep_their_level(self, file_decoder, tmp_path, channels, mask):
        """As in the reference, whose FFmpeg mixes integers: nothing gets louder, nothing clips, and a track without a
        layout (mask 0) has sound too."""
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        path = write_wave(tmp_path / "a.wav", np.repeat(tone[:, None], channels, axis=1), RATE, mask)
        with file_decoder.open(path) as media:
            waveform = media.soundtrack().waveform
        # Mixes leave out the channel for low frequencies, which FFmpeg's weights do not count either.
        np.testing.assert_allclose(waveform[1000:-1000], tone[1000:-1000], atol=0.01)

    @pytest.mark.parametrize("channels", [3, 9])
    def test_every_channel_of_an_unknown_layout_is_heard(self, file_decoder, tmp_path, channels):
        """Silence in all but one: a guessed layout could take it for low frequencies and drop it."""
        for speaking in range(channels):
            samples = np.zeros((RATE, channels))
            samples[:, speaking] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
            path = write_wave(tmp_path / "a.wav", samples, RATE, 0)
            with file_decoder.open(path) as media:
                loudest = np.abs(media.soundtrack().waveform).max()
            assert loudest == pytest.approx(0.5 / channels, rel=0.02)

    def test_sample_rate(self, file_decoder, video):
        with file_decoder.open(video) as media:
            track = media.soundtrack(sample_rate=16000)
            assert len(media.sound(1, 3, sample_rate=16000)) == 32000
        assert track.sample_rate == 16000
        assert find_clicks(track.waveform, 16000) == pytest.approx(CLICKS, abs=0.002)

    def test_media_end(self, file_decoder, tmp_path):
        """The picture is longer than the sound."""
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(2, [0.5]))])
        with file_decoder.open(path) as media:
            track = media.soundtrack()
        assert track.media_end == pytest.approx(6, abs=0.15)
        assert len(track.waveform) / RATE == pytest.approx(2, abs=0.1)

    def test_duration_limit(self, file_decoder, video):
        with file_decoder.open(video, MediaLimits(max_duration=3.0)) as media:
            track = media.soundtrack()
            span = media.sound(1, 6)
        assert track.media_end == 3.0
        assert len(track.waveform) <= 3 * RATE
        assert find_clicks(span, RATE) == pytest.approx([1.0], abs=0.002)
        assert not span[2 * RATE :].any()

    @pytest.mark.parametrize(
        ("start", "stop", "clicks"), [(0, 6, CLICKS), (0, 1, [0.5]), (1.25, 5, [2.0]), (5.25, 6, [5.5])]
    )
    def test_span(self, file_decoder, video, start, stop, clicks):
        with file_decoder.open(video) as media:
            sound = media.sound(start, stop)
            whole = media.soundtrack().waveform
        assert (sound.dtype, len(sound)) == (np.float32, round((stop - start) * RATE))
        assert find_clicks(sound, RATE) == pytest.approx([click - start for click in clicks], abs=0.002)
        first = round(start * RATE)
        common = min(len(sound), len(whole) - first)
        np.testing.assert_allclose(sound[:common], whole[first : first + common], atol=0.02)

    def test_span_after_the_end_is_silence(self, file_decoder, video):
        with file_decoder.open(video) as media:
            assert not media.sound(100, 101).any()
            assert len(media.sound(3, 3)) == 0

    @pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, np.inf), (np.nan, 1)])
    def test_bad_span(self, file_decoder, video, start, stop):
        with file_decoder.open(video) as media, pytest.raises(ValueError, match="0 <= start <= stop"):
            media.sound(start, stop)

    def test_none(self, file_decoder, tmp_path):
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES[:5])) as media:
            for decode in (media.soundtrack, lambda: media.sound(0, 1)):
                with pytest.raises(BadInput, match="no audio track"):
                    decode()


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
