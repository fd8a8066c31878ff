"""Other ways to decode what a pretraining example takes: frames at given times, and the sound at 22050 Hz mono."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.interleaved import Missing

SAMPLE_RATE = 22050
_RELEASED_THREADS = 4
# Frames at a time that is their own are found in spite of rounding.
_ROUNDING = 1e-6

Example = tuple[np.ndarray, np.ndarray]
"""uint8 [frames, height, width, 3] and float32 [samples]"""


def imported(name: str) -> ModuleType:
    """The module, or Missing with the reason why there is none."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise Missing(f"{name} cannot be imported: {str(error).splitlines()[0]}") from error


def every_frame(path: Path, times: Sequence[float]) -> np.ndarray:
    """PyAV decodes every frame up to the last time with all threads, and converts those asked for."""
    waiting, kept = list(times), []
    with imported("av").open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        before: Any = None
        for frame in container.decode(video=0):
            while waiting and before is not None and frame.time > waiting[0] + _ROUNDING:
                kept.append(before.to_ndarray(format="rgb24"))
                waiting.pop(0)
            if not waiting:
                break
            before = frame
    return np.stack(kept)


def frames_by_seeking(path: Path, times: Sequence[float]) -> np.ndarray:
    """PyAV goes to the key frame before each time, and decodes from there with all threads."""
    kept = []
    with imported("av").open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for time in times:
            container.seek(int(time / stream.time_base), stream=stream)
            before: Any = None
            for frame in container.decode(stream):
                if frame.time > time + _ROUNDING:
                    break
                before = frame
            kept.append(before.to_ndarray(format="rgb24"))
    return np.stack(kept)


def librosa_sound(path: Path) -> np.ndarray:
    """PyAV's samples, mixed to mono, resampled by librosa."""
    with imported("av").open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray().mean(0) for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    return imported("librosa").resample(sound, orig_sr=rate, target_sr=SAMPLE_RATE)


def torchcodec_frames(path: Path, times: Sequence[float]) -> np.ndarray:
    decoders = imported("torchcodec.decoders")
    decoder = decoders.VideoDecoder(
        str(path), dimension_order="NHWC", seek_mode="approximate", num_ffmpeg_threads=os.cpu_count() or 1
    )
    return decoder.get_frames_played_at(list(times)).data.numpy()


def torchcodec_sound(path: Path) -> np.ndarray:
    decoder = imported("torchcodec.decoders").AudioDecoder(str(path), sample_rate=SAMPLE_RATE, num_channels=1)
    return decoder.get_all_samples().data[0].numpy()


def opencv_frames(path: Path, times: Sequence[float]) -> np.ndarray:
    cv2 = imported("cv2")
    capture, frames = cv2.VideoCapture(str(path)), []
    for time in times:
        capture.set(cv2.CAP_PROP_POS_MSEC, time * 1000)
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def released_way(path: Path, times: Sequence[float]) -> Example:
    """What the released code runs for a video: ffmpeg and ffprobe once a frame in four threads, and beside them one
    ffmpeg that writes the sound as a WAV file."""
    ffmpeg = _program("ffmpeg")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_RELEASED_THREADS) as pool:
        wave = Path(folder) / "sound.wav"
        command = [ffmpeg, "-y", "-i", str(path), "-ac", "1", "-ar", str(SAMPLE_RATE), str(wave)]
        sound = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        frames = list(pool.map(lambda time: _released_frame(path, time), times))
        if sound.wait():
            raise RuntimeError(f"ffmpeg cannot decode the sound of {path}")
        from scipy.io import wavfile

        samples = wavfile.read(wave)[1].astype(np.float32)
    return np.stack(frames), samples / max(float(np.abs(samples).max()), 1.0)


def _released_frame(path: Path, time: float) -> np.ndarray:
    probe = [_program("ffprobe"), "-v", "error", "-show_streams", "-print_format", "xml", str(path)]
    streams = subprocess.run(probe, capture_output=True, check=True, text=True, env=_environment()).stdout
    width, height = (int(value) for name in ("width", "height") for value in re.findall(rf'\b{name}="(\d+)"', streams))
    command = [_program("ffmpeg"), "-ss", f"{time:.3f}", "-threads", "1", "-i", str(path), "-r", "1", "-q:v", "2"]
    command += ["-pix_fmt", "rgb24", "-frames:v", "1", "-f", "image2pipe", "-vcodec", "rawvideo", "-"]
    found = subprocess.run(command, capture_output=True, check=True, env=_environment()).stdout
    return np.frombuffer(found, dtype=np.uint8).reshape(height, width, 3)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"the program {name} is not installed")
    return found


def _environment() -> dict[str, str]:
    """Programs must not load the libraries that torchcodec is pointed at."""
    return {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
