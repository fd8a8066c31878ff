"""Frames on their way to the model as JPEG files, each with its drawn crop: what the training device decodes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.data.images import InputPlan, decode_picture, input_image
from reserve.errors import BadInput


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG file of the video `video_id`, `sides` (height, width) by its header, and how it becomes an input."""

    video_id: str
    jpeg: bytes
    sides: tuple[int, int]
    plan: InputPlan

    def decoded(self, size: tuple[int, int]) -> np.ndarray:
        """The input by way of Pillow: uint8 [*size, 3]. Raises BadInput naming the video if the file is damaged."""
        try:
            return input_image(decode_picture(self.jpeg), self.plan, size)
        except BadInput as error:
            raise BadInput(f"{self.video_id}: {error}") from error


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """The images of a batch, in the order of its examples and their segments: [examples, segments, *size, 3] once they
    are decoded."""

    images: Sequence[EncodedImage]
    segments: int
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded images."""
        return len(self.images) // self.segments, self.segments, *self.size, 3
