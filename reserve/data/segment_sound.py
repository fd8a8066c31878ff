"""The sound of segments: their log-mel spectrograms (SPEC 2), and FLAC files that these can be made of later."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reserve.config import MAX_PLAYBACK_SPEED, SEGMENT_SECONDS, DataConfig
from reserve.errors import BadInput

if TYPE_CHECKING:
    import torch

_MEL_BATCH = 32
FULL_SCALE = 32767


def clip_length(playback_speed: int, sample_rate: int) -> int:
    """Samples of a segment's sound."""
    return int(sample_rate * SEGMENT_SECONDS) * playback_speed


def log_mels(clip: Callable[[int], np.ndarray], playback_speeds: Sequence[int], config: DataConfig) -> np.ndarray:
    """Log-mel spectrograms of segments: float16 [segments, spec_size, num_mels].

    `clip` returns the sound of a segment by its number, float [clip_length], the track's peak at 1; few are in memory
    at a time.
    """
    mels = np.zeros((len(playback_speeds), config.spec_size, config.num_mels), dtype=np.float16)
    for speed in range(1, MAX_PLAYBACK_SPEED + 1):
        at_speed = [index for index, each in enumerate(playback_speeds) if each == speed]
        for batch in (at_speed[i : i + _MEL_BATCH] for i in range(0, len(at_speed), _MEL_BATCH)):
            mels[batch] = _log_mel(np.stack([clip(index) for index in batch]), speed, config)
    return mels


def _log_mel(clips: np.ndarray, speed: int, config: DataConfig) -> np.ndarray:
    import torch

    return clip_log_mels(torch.from_numpy(clips.astype(np.float32)), speed, config).numpy().astype(np.float16)


def clip_log_mels(clips: torch.Tensor, speed: int, config: DataConfig) -> torch.Tensor:
    """Log-mel spectrograms of clips of one playback speed, float32 [clips, clip_length] on any device: float32 [clips,
    spec_size, num_mels]. Raises ValueError if `config` contradicts itself about spec_size."""
    from reserve_kernels import log_mel_spectrogram

    spectrogram = log_mel_spectrogram(
        clips,
        playback_speed=speed,
        pad_mode="reflect",
        sample_rate=config.sample_rate,
        n_fft=config.fft_window_size,
        hop_length=config.fft_hop_length,
        n_mels=config.num_mels,
    )
    if spectrogram.shape[1] != config.spec_size:
        raise ValueError(
            f"data.spec_size is {config.spec_size}, but a segment of {SEGMENT_SECONDS:g} s has {spectrogram.shape[1]} "
            "mel frames at data.sample_rate and data.fft_hop_length"
        )
    return spectrogram


def encode_flac(clip: np.ndarray, sample_rate: int) -> bytes:
    """A clip, float [samples] in [-1, 1], as a FLAC file of 16 bits."""
    samples = np.rint(np.clip(clip, -1, 1) * FULL_SCALE).astype(np.int16)
    file = io.BytesIO()
    _soundfile().write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_flac(data: bytes, playback_speed: int, sample_rate: int) -> np.ndarray:
    """The clip of a segment's FLAC file: float32 [clip_length] in [-1, 1]. Raises BadInput if it is something else."""
    return np.divide(flac_samples(data, playback_speed, sample_rate), np.float32(FULL_SCALE), dtype=np.float32)


def flac_samples(data: bytes, playback_speed: int, sample_rate: int) -> np.ndarray:
    """decode_flac as the file has it: int16 [clip_length], FULL_SCALE for 1."""
    library = _soundfile()
    wanted = clip_length(playback_speed, sample_rate)
    try:
        with library.SoundFile(io.BytesIO(data)) as file:
            found = (file.format, file.channels, file.samplerate, file.frames)
            if found != ("FLAC", 1, sample_rate, wanted):
                raise BadInput(
                    f"its sound is {found[0]} of {found[1]} channel(s), {found[2]} Hz and {found[3]} samples, not FLAC "
                    f"of 1 channel, {sample_rate} Hz and {wanted} samples"
                )
            samples = file.read(wanted, dtype="int16")
    except library.LibsndfileError as error:
        # Its own text names the address of the buffer, so a damaged sample would be logged anew each time.
        raise BadInput(f"its sound cannot be decoded: {error.error_string}") from error
    if samples.shape != (wanted,):
        raise BadInput(f"its sound has {len(samples)} of {wanted} samples")
    return samples


def flac_log_mels(files: Sequence[bytes], playback_speeds: Sequence[int], config: DataConfig) -> np.ndarray:
    """Log-mel spectrograms of segments from their FLAC files: float16 [segments, spec_size, num_mels].

    Raises BadInput as decode_flac does. They differ from those of the sound itself by what 16 bits round off.
    """
    return log_mels(
        lambda index: decode_flac(files[index], playback_speeds[index], config.sample_rate), playback_speeds, config
    )


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("FLAC needs soundfile: pip install 'merlot-reserve[train]'", name="soundfile") from error
    return soundfile
