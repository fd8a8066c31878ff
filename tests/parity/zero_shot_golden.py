"""The reference's zero-shot numbers as arguments of this project's functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reserve.batch.video_tokens import video_tokens
from reserve.checkpoint.official import load_official
from reserve.config.official import load_official_config
from reserve.data.float_images import zero_shot_image
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot.encoding import JointQuestion

LISTS = ("anticipate", "mixed", "three", "long", "long_audio", "first")


class ZeroShotGolden:
    """`arrays` by name, and the `model` that made them."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "zero_shot.npz") as archive:
            self.arrays = dict(archive)
        config = load_official_config(folder / "tiny.yaml").model
        layers = {"joint_num_layers": 2, "vit_num_layers": 2, "audio_num_layers": 1, "span_num_layers": 1}
        self.config = replace(config, vocab_size=2048, output_grid=tuple(self.arrays["grid"].tolist()), **layers)
        self.model: MerlotReserve = load_official(folder / "tasks.ckpt.msgpack", self.config)

    def segments(self, name: str) -> int:
        return len({key.split("/")[1] for key in self.arrays if key.startswith(f"{name}/segment_")})

    def of_segment(self, name: str, number: int, what: str) -> np.ndarray | None:
        return self.arrays.get(f"{name}/segment_{number}/{what}")

    def inputs(self, name: str) -> tuple[np.ndarray, np.ndarray, JointQuestion]:
        """Images [n, H, W, 3], clips [sounds, 3, 60, 65] and the question of a segment list."""
        count = self.segments(name)
        frames = [self.arrays[f"frame/{self.of_segment(name, number, 'frame')}"] for number in range(count)]
        images = np.stack([zero_shot_image(frame, self.config.image_size) for frame in frames])
        found = [self.of_segment(name, number, "spectrogram") for number in range(count)]
        clips = [clip for clip in found if clip is not None]
        sounds = np.cumsum([clip is not None for clip in found]) - 1
        sounds[[clip is None for clip in found]] = -1
        tokens = video_tokens([self.of_segment(name, number, "text") for number in range(count)])
        stacked = np.stack(clips) if clips else np.zeros((0, 3, 60, 65), np.float32)
        return images, stacked, JointQuestion(tokens, np.arange(count), sounds)


def as_patches(image: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] as the reference's patches of 16 x 16 pixels: [patches, 768]."""
    h, w = image.shape[0] // 16, image.shape[1] // 16
    return image.reshape(h, 16, w, 16, 3).swapaxes(1, 2).reshape(h * w, 768)
