import json
import re
from pathlib import Path

import numpy as np
import pytest

from reserve.synthetic import make_videos, videos
from reserve.synthetic.sounds import pitch_of
from reserve.synthetic.story import COLOURS, SHAPES, is_held_out

av = pytest.importorskip("av", reason="needs the extra video")

Cue = tuple[float, float, list[tuple[float, str]]]


def seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def cues(video: Path) -> list[Cue]:
    """Start, end and (start, word) pairs of each caption of `video`."""
    found = []
    for block in video.with_suffix(".en.vtt").read_text().split("\n\n")[1:]:
        timing, text = block.strip().splitlines()
        start, end = (seconds(time) for time in re.findall(r"\d+:\d+:[\d.]+", timing))
        later = [(seconds(time), word) for time, word in re.findall(r"<([\d:.]+)><c> ([^<]+)</c>", text)]
        found.append((start, end, [(start, text.split("<")[0]), *later]))
    return found


def chapters(video: Path) -> list[dict]:
    return json.loads(video.with_suffix(".info.json").read_text())["chapters"]


def pair_of(chapter: dict) -> tuple[str, str]:
    """Colour and shape named by a chapter: "two red stars at the beach"."""
    _, colour, things = chapter["title"].split()[:3]
    return colour, next(shape for shape in SHAPES if things.startswith(shape))


def decode_audio(video: Path) -> tuple[np.ndarray, int]:
    with av.open(str(video)) as container:
        rate = container.streams.audio[0].rate
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]), rate


def power_between(waveform: np.ndarray, rate: int, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / rate)
    return float(power[(frequency >= low) & (frequency < high)].sum())


def low_part(waveform: np.ndarray, rate: int, limit: float) -> np.ndarray:
    spectrum = np.fft.rfft(waveform)
    spectrum[np.fft.rfftfreq(len(waveform), 1 / rate) > limit] = 0
    return np.fft.irfft(spectrum, len(waveform))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_files_open_and_are_long_enough_for_an_example(made_videos, split):
    video = getattr(made_videos, split)
    assert video.parent.name == split
    with av.open(str(video)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.width, picture.height, picture.codec_context.name) == (320, 192, "h264")
        assert (sound.rate, sound.layout.name, sound.codec_context.name) == (22050, "mono", "aac")
        assert float(picture.duration * picture.time_base) >= 92
        assert abs(float(picture.duration * picture.time_base) - float(sound.duration * sound.time_base)) < 0.1


def test_held_out_pairs_are_in_held_out_videos_only(made_videos):
    train = {pair_of(chapter) for chapter in chapters(made_videos.train)}
    heldout = {pair_of(chapter) for chapter in chapters(made_videos.heldout)}
    assert not any(is_held_out(*pair) for pair in train)
    assert sum(is_held_out(*pair) for pair in heldout) >= 5
    captions = made_videos.train.with_suffix(".en.vtt").read_text()
    words = re.sub(r"<[^>]*>", "", captions)
    for colour, shape in re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", words):
        assert not is_held_out(colour, shape)


def test_nearly_every_five_seconds_hold_eight_words(made_videos):
    times = np.array([start for _, _, words in cues(made_videos.train) for start, _ in words])
    windows = np.arange(times[0], times[-1] - 5, 0.5)
    counts = [((times >= start) & (times < start + 5)).sum() for start in windows]
    assert np.mean(np.array(counts) >= 8) > 0.95
    assert 2.2 <= len(times) / (times[-1] - times[0]) <= 3.0


def test_speech_sounds_where_the_captions_have_words(made_videos):
    audio, rate = decode_audio(made_videos.train)
    captions = cues(made_videos.train)
    checked = [chapter for chapter in chapters(made_videos.train) if pitch_of(pair_of(chapter)[0]) > 1500]
    assert checked
    for chapter in checked:  # only speech has energy below 300 Hz there
        first = round(chapter["start_time"] * rate)
        voice = low_part(audio[first : round(chapter["end_time"] * rate)], rate, 300) ** 2
        inside = np.zeros(len(voice), bool)
        for start, end, _ in captions:
            inside[max(0, round(start * rate) - first) : max(0, round(end * rate) - first)] = True
        assert voice[inside].mean() > 10 * voice[~inside].mean(), chapter


def test_each_scene_sounds_at_the_pitch_of_its_colour(made_videos):
    audio, rate = decode_audio(made_videos.train)
    for chapter in chapters(made_videos.train):
        part = audio[round(chapter["start_time"] * rate) : round(chapter["end_time"] * rate)]
        pitch = pitch_of(pair_of(chapter)[0])
        assert power_between(part, rate, pitch / 1.8, pitch * 1.8) > 0.3 * power_between(part, rate, 0, rate)


def test_each_scene_shows_its_colour(made_videos):
    with av.open(str(made_videos.train)) as container:
        frames = list(container.decode(video=0))
    for chapter in chapters(made_videos.train):
        middle = frames[round((chapter["start_time"] + chapter["end_time"]) / 2 * videos.FRAME_RATE)]
        frame = middle.to_ndarray(format="rgb24").astype(np.int16)
        named = pair_of(chapter)[0]
        share = {
            name: (np.abs(frame - np.array(rgb, np.int16)).max(axis=-1) < 40).mean()
            for name, rgb in COLOURS.items()
            if name in (named, *COLOURS.keys() - {"white"})  # the motion marks are white
        }
        assert share[named] == max(share.values()) > 0.02, chapter


def test_any_number_of_workers_and_videos_writes_the_same_files(made_videos, tmp_path):
    """`made_videos` come from a larger set with the same seed."""
    calls = []
    train, heldout = make_videos(
        tmp_path, videos=2, seed=3, held_out=0.5, workers=2, progress=lambda done, of: calls.append((done, of))
    )
    assert calls == [(1, 2), (2, 2)]
    for made, again in ((made_videos.train, train[0]), (made_videos.heldout, heldout[0])):
        for suffix in (".mp4", ".en.vtt", ".info.json"):
            assert made.with_suffix(suffix).read_bytes() == again.with_suffix(suffix).read_bytes()


def test_nothing_unfinished_is_left(made_videos):
    names = sorted(path.name for path in made_videos.train.parent.iterdir())
    assert names == [f"story-000{index}{suffix}" for index in range(2) for suffix in (".en.vtt", ".info.json", ".mp4")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": 0}, "videos must be at least 1; got 0"),
        ({"videos": 2, "held_out": 3}, "held_out must be a fraction in .* got 3"),
        ({"videos": 2, "held_out": -0.1}, "held_out must be a fraction in .* got -0.1"),
        ({"videos": 2, "workers": 0}, "workers must be at least 1; got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_videos(tmp_path, **arguments)


@pytest.mark.parametrize(("package", "extra"), [("av", "video"), ("espeakng_loader", "demo"), ("PIL", "train")])
def test_missing_packages_name_their_extra(monkeypatch, tmp_path, package, extra):
    monkeypatch.setattr(videos, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ImportError, match=rf"need {package}: pip install 'merlot-reserve\[{extra}\]'"):
        make_videos(tmp_path, videos=1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        make_videos(tmp_path / "file", videos=1)
