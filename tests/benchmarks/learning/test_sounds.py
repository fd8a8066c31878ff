"""Sounds as windows, and what is learnt from them."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.learning import sound_finetuning, sounds
from benchmarks.learning.sound_finetuning import finetune
from benchmarks.learning.sound_probes import encoded, mel_statistics, probe
from benchmarks.learning.sound_sets import Sounds, esc10, fsdd
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.small_stores import MODEL

RATE = 8000


def write_tone(path: Path, hertz: float, seconds: float, rng: np.random.Generator) -> None:
    times = np.arange(int(RATE * seconds)) / RATE
    samples = np.sin(2 * np.pi * hertz * times) + 0.05 * rng.normal(size=len(times))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 9000).astype(np.int16).tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Three digits, each a pitch, by six speakers of two takes."""
    folder, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    for digit in range(3):
        for speaker in "abcdef":
            for take in range(2):
                write_tone(folder / f"{digit}_{speaker}_{take}.wav", 300 * 2.5**digit, 0.4 + 0.1 * take, rng)
    return folder


@pytest.fixture(scope="module")
def heard(digits) -> Sounds:
    return fsdd(digits, MODEL)


def test_speakers_are_tested_by_those_who_have_not_heard_them(heard):
    assert heard.windows.shape == (36, 1, 60, 65)
    assert heard.classes == 3
    tested = []
    for train, test in heard.rotations():
        assert not set(heard.source[train]) & set(heard.source[test])
        assert len(set(heard.source[test])) == 2
        tested += test.tolist()
    assert sorted(tested) == list(range(36))


def test_a_short_clip_is_followed_by_silence(heard):
    frames = heard.windows[0, 0]
    assert frames[5, :-1].max() > 1
    assert frames[40:, :-1].abs().max() == 0
    assert (frames[:, -1] == 1).all()


def test_clips_of_esc10_have_three_windows_and_their_fold(digits, tmp_path):
    rng = np.random.default_rng(0)
    rows = [("1-10-A.wav", 1, "Dog bark"), ("1-10-B.wav", 1, "Dog bark"), ("2-11-A.wav", 2, "Rain")]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "fold", "class"), *rows])
    for name, *_ in rows:
        write_tone(tmp_path / name, 400, 5, rng)
    found = esc10(tmp_path, MODEL)
    assert found.windows.shape == (3, 3, 60, 65)
    assert found.windows[..., :-1].amax((-1, -2)).min() > 1
    assert found.labels.tolist() == [0, 0, 1]
    assert found.part.tolist() == [1, 1, 2]
    assert found.source.tolist() == ["1-10", "1-10", "2-11"]


def test_pitches_are_told_apart_by_their_mel_statistics(heard):
    pytest.importorskip("sklearn")
    assert probe(mel_statistics(heard.windows), heard).mean() > 0.9


def test_labels_without_a_pattern_are_not_learnt(heard):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    shuffled = Sounds(heard.windows, rng.permutation(heard.labels), heard.part, heard.source)
    assert probe(mel_statistics(heard.windows), shuffled).mean() < 0.7


def test_a_clip_is_encoded_as_the_mean_of_its_windows(heard):
    encoder = MerlotReserve(MODEL).audio_encoder
    twice = heard.windows[:2].repeat(1, 2, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(encoded(encoder, twice), encoded(encoder, heard.windows[:2]))
    assert encoded(encoder, twice).shape == (2, 2 * MODEL.hidden_size)


def test_an_encoder_learns_pitches_and_is_not_changed_itself(heard, monkeypatch):
    monkeypatch.setattr(sound_finetuning, "STEPS", 25)
    monkeypatch.setattr(sound_finetuning, "BATCH_SIZE", 8)
    monkeypatch.setattr(sound_finetuning, "RATES", (3e-3,))
    torch.manual_seed(0)
    encoder = MerlotReserve(MODEL).audio_encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    right = finetune([encoder], heard)
    assert right.shape == (1, 36)
    assert right.mean() > 0.8
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_tested_clip_is_never_trained_on_nor_used_to_choose_the_rate(heard, monkeypatch):
    """In each rotation, by part and by speaker."""
    trained: list[np.ndarray] = []

    def train(encoder, sounds, clips, rate, seed):
        trained.append(clips)
        return clips

    def is_right(model, sounds, clips):
        assert not set(model) & set(clips)
        assert not set(sounds.source[model]) & set(sounds.source[clips])
        return np.ones(len(clips), dtype=bool)

    monkeypatch.setattr(sound_finetuning, "train", train)
    monkeypatch.setattr(sound_finetuning, "is_right", is_right)
    assert finetune([None, None], heard).all()
    each = len(sound_finetuning.RATES) + 2
    for part, used in zip(np.unique(heard.part), np.array_split(np.arange(len(trained)), 3), strict=True):
        assert len(used) == each
        clips = np.concatenate([trained[index] for index in used])
        assert part not in heard.part[clips]
        assert set(clips) == set(np.flatnonzero(heard.part != part))


def test_untrained_encoders_are_drawn_and_pretrained_ones_read(tmp_path):
    torch.manual_seed(5)
    model = MerlotReserve(MODEL)
    model.save_pretrained(tmp_path)
    (read,) = sounds.encoders([str(tmp_path)], untrained=False)
    weight = model.audio_encoder.embedding.weight
    assert torch.equal(read.embedding.weight, weight)
    drawn = [one.embedding.weight for one in sounds.encoders([str(tmp_path)] * 2, untrained=True)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not any(torch.equal(one, weight) for one in drawn)


def test_each_method_counts_its_right_answers_by_speaker(digits, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(sound_finetuning, "STEPS", 2)
    monkeypatch.setattr(sound_finetuning, "RATES", (3e-3,))
    weights = tmp_path / "weights"
    MerlotReserve(MODEL).save_pretrained(weights)
    shared = {"set": "FSDD", "folder": str(digits), "starts": [{"weights": str(weights)}] * 2}
    for method in sounds.METHODS:
        found = sounds.name_sounds(tmp_path, shared | {"method": method})
        assert found["groups"] == list("abcdef")
        assert found["asked"] == [6] * 6
        assert len(found["right"]) == (1 if method == sounds.MEL else 2)  # one a model
        assert found["classes"] == found["rotations"] == 3
        last = [sum(right[4:]) for right in found["right"].values()]  # of the last two speakers
        assert found["last_part"] == {"clips": 12, "right": last}


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    sounds.main(["--esc10", str(tmp_path / "gone"), "--weights", str(tmp_path), "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "ESC-10 is left out: no " in said
    assert "FSDD is left out: --fsdd is not given" in said
