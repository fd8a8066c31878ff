"""Whisper's features of every sound file in a folder, as NumPy arrays.

    python examples/whisper_features.py FOLDER OUT

Files of any length and format that FFmpeg decodes (it needs `pip install av`) become OUT/NAME.npy, float32
[bands, frames] with 100 frames a second. A file is decoded and transformed in one piece: an hour is 115 MB of samples.
Files that cannot be decoded are named and counted; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import av
import numpy as np
import torch

from reserve_kernels import log_mel_spectrogram

SAMPLE_RATE, FRAME = 16000, 160


def decode(path: Path) -> torch.Tensor:
    """The sound of a file, int16 [samples] at 16 kHz. Raises av.FFmpegError or ValueError if it has none."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts = []
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise ValueError("it has no sound")
        for frame in container.decode(audio=0):
            parts += [resampled.to_ndarray()[0] for resampled in resampler.resample(frame)]
        parts += [resampled.to_ndarray()[0] for resampled in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    if len(samples) < FRAME:
        raise ValueError(f"its sound has {len(samples)} samples, fewer than a frame's {FRAME}")
    return torch.from_numpy(samples)


def convert(folder: Path, out: Path, preset: str) -> tuple[int, dict[str, str]]:
    """The number of files converted, and what is wrong with the others."""
    out.mkdir(parents=True, exist_ok=True)
    done, broken = 0, {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            samples = decode(path)
        except (av.FFmpegError, ValueError) as error:
            broken[path.name] = str(error)
            continue
        # Of int16 samples: no copy of them in float32 is made.
        features = log_mel_spectrogram(samples, preset=preset)
        # The whole name: a.wav and a.mp3 may both be there.
        np.save(out / f"{path.name}.npy", features.numpy())
        done += 1
        print(f"{path.name}: {len(samples) / SAMPLE_RATE:.1f} s, {features.shape[1]} frames")
    return done, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--bands", type=int, choices=(80, 128), default=80, help="128 for large-v3 (default: 80)")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"{options.out} is no folder")
    preset = "whisper" if options.bands == 80 else "whisper_128"
    done, broken = convert(options.folder, options.out, preset)
    for name, reason in broken.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    print(f"{done} files in {options.out}, {len(broken)} left out")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
