"""The programs in examples/ run and learn."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reserve_kernels import log_mel_spectrogram
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / f"{name}.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def percent(output: str) -> int:
    found = re.search(r"(\d+)%\s*$", output)
    assert found is not None, output
    return int(found.group(1))


def test_sounds_and_words_learns():
    done = run("sounds_and_words", "--steps", "30")
    assert done.returncode == 0, done.stderr
    assert percent(done.stdout) >= 30  # by chance 3


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_clip_training_learns(kind):
    done = run("clip_training", "--steps", "60", "--kind", kind)
    assert done.returncode == 0, done.stderr
    assert percent(done.stdout) >= 10  # by chance 2


def test_a_hugging_face_trainer_learns(tmp_path):
    needs("transformers", "accelerate")
    done = run("hugging_face_trainer", "--steps", "12", "--batch_size", "12", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert percent(done.stdout) >= 12  # by chance 3


def test_a_lightning_module_learns():
    needs("lightning")
    done = run("lightning_module", "--steps", "12", "--batch_size", "12")
    assert done.returncode == 0, done.stderr
    assert percent(done.stdout) >= 12  # by chance 3


def test_whisper_features_of_a_folder(tmp_path):
    needs("av", "soundfile")
    import soundfile

    folder, out = tmp_path / "sounds", tmp_path / "features"
    folder.mkdir()
    samples = np.random.default_rng(0).integers(-9000, 9000, 12345).astype(np.int16)
    soundfile.write(folder / "noise.wav", samples, 16000, subtype="PCM_16")
    (folder / "notes.txt").write_text("no sound")
    done = run("whisper_features", folder, out)
    assert done.returncode == 1
    assert "left out notes.txt: " in done.stderr
    assert done.stdout.endswith(f"1 files in {out}, 1 left out\n")
    (path,) = out.iterdir()
    assert path.name == "noise.wav.npy"
    expected = log_mel_spectrogram(torch.from_numpy(samples), preset="whisper")
    assert np.array_equal(np.load(path), expected.numpy())


def test_whisper_features_of_no_folder_is_an_error(tmp_path):
    needs("av")
    done = run("whisper_features", tmp_path / "missing", tmp_path)
    assert done.returncode == 2
    assert "missing is no folder" in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_has_a_test(path):
    assert f'run("{path.stem}"' in Path(__file__).read_text("utf-8")
