"""JPEG files to the model's images through DALI, on a GPU or on the CPU: decoded, resized, cropped and padded.

DALI gets the files and the drawn crops from the loader and decides nothing: which pictures, in which order, and what
happens to each is settled before. Results differ from Pillow's (`EncodedImage.decoded`) by 0.2 of 255 levels on average
and 4 at most after bilinear, bicubic and Lanczos resizing. The nearest pixel is another one where two are equally near.
DALI has no box filter: the triangle takes its place, 2 levels away on average.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from reserve.data.decode.dali.library import import_failure
from reserve.data.encoded_images import EncodedImage
from reserve.data.images import ROTATED_EDGE, ROTATED_EDGE_WIDTH

logger = logging.getLogger(__name__)

MOST_PICTURES = 128
"""Pictures that DALI decodes at a time."""


class DaliPictures:
    """Turns pictures into images of `size` on `device`, with `threads` threads of the CPU.

    Raises RuntimeError with the reason if DALI cannot run.
    """

    def __init__(self, size: tuple[int, int], device: torch.device | str = "cpu", *, threads: int = 2) -> None:
        if (reason := import_failure()) is not None:
            raise RuntimeError(f"pictures cannot be decoded by DALI: {reason}")
        self._size, self._device, self._threads = size, torch.device(device), threads
        self._pipeline: Any = None

    def __call__(self, pictures: Sequence[EncodedImage]) -> torch.Tensor:
        """uint8 [pictures, *size, 3] on the device.

        Pictures that DALI refuses are decoded by Pillow instead. Raises BadInput naming the video of one that is
        damaged.
        """
        if not pictures:
            return torch.empty((0, *self._size, 3), dtype=torch.uint8, device=self._device)
        parts = [pictures[i : i + MOST_PICTURES] for i in range(0, len(pictures), MOST_PICTURES)]
        return torch.cat([self._decode(part) for part in parts])

    def _decode(self, pictures: Sequence[EncodedImage]) -> torch.Tensor:
        if self._pipeline is None:
            self._pipeline = _build(self._size, self._device, self._threads)
        try:
            return self._run(pictures)
        except RuntimeError as error:
            # DALI fails a batch as a whole, and its pipeline with it.
            self._pipeline = None
            logger.warning("DALI cannot decode a batch of %d pictures; Pillow does: %s", len(pictures), _reason(error))
            images = np.stack([picture.decoded(self._size) for picture in pictures])
            return torch.from_numpy(images).to(self._device)

    def _run(self, pictures: Sequence[EncodedImage]) -> torch.Tensor:
        plans = [picture.plan for picture in pictures]
        filters = _filters()
        inputs = {
            "jpeg": [np.frombuffer(picture.jpeg, np.uint8) for picture in pictures],
            "turned": [np.bool_(plan.turned) for plan in plans],
            "edged": [
                np.array((picture.sides[1], picture.sides[0] + 2 * ROTATED_EDGE_WIDTH), np.int32)
                for picture in pictures
            ],
            "scaled": [np.array((plan.height, plan.width), np.float32) for plan in plans],
            "filter": [np.int32(filters[plan.resample]) for plan in plans],
            "corner": [np.array((plan.top, plan.left), np.int32) for plan in plans],
        }
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        if self._device.type == "cpu":
            (images,) = self._pipeline.run()
            return torch.from_numpy(images.as_array())
        stream = torch.cuda.current_stream(self._device)
        (images,) = self._pipeline.run(stream)
        copy = torch.from_dlpack(images.as_tensor()).clone()
        # Before DALI may use the memory of its output again.
        stream.synchronize()
        return copy


def _build(size: tuple[int, int], device: torch.device, threads: int) -> Any:
    """The pipeline. Everything about a picture is an input; see `DaliPictures._run`."""
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device.type == "cuda"

    @pipeline_def(
        batch_size=MOST_PICTURES,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        exec_dynamic=True,
        prefetch_queue_depth=1,
        enable_conditionals=True,
    )
    def pictures_to_images() -> Any:
        jpeg = fn.external_source(name="jpeg", dtype=types.UINT8, ndim=1)
        turned = fn.external_source(name="turned", dtype=types.BOOL, ndim=0)
        edged = fn.external_source(name="edged", dtype=types.INT32, ndim=1)
        scaled = fn.external_source(name="scaled", dtype=types.FLOAT, ndim=1)
        resample = fn.reinterpret(fn.external_source(name="filter", dtype=types.INT32, ndim=0), dtype=types.INTERP_TYPE)
        corner = fn.external_source(name="corner", dtype=types.INT32, ndim=1)
        image = fn.decoders.image(
            jpeg,
            device="mixed" if on_gpu else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,
            jpeg_fancy_upsampling=True,
        )
        if turned:
            # By 90° counter-clockwise.
            image = fn.flip(fn.transpose(image, perm=[1, 0, 2], transpose_layout=False), horizontal=0, vertical=1)
            image = fn.slice(
                image,
                start=[0, -ROTATED_EDGE_WIDTH],
                shape=edged,
                axes=[0, 1],
                out_of_bounds_policy="pad",
                fill_values=ROTATED_EDGE,
            )
        image = fn.resize(image, size=scaled, interp_type=resample, antialias=True)
        return fn.slice(image, start=corner, shape=list(size), axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)

    pipeline = pictures_to_images()
    pipeline.build()
    return pipeline


@cache
def _filters() -> dict[int, int]:
    """DALI's filter for each of Pillow's."""
    from nvidia.dali import types
    from PIL.Image import Resampling

    names = {
        Resampling.NEAREST: "NN",
        Resampling.BOX: "TRIANGULAR",
        Resampling.BILINEAR: "LINEAR",
        Resampling.BICUBIC: "CUBIC",
        Resampling.LANCZOS: "LANCZOS3",
    }
    return {int(ours): int(getattr(types, f"INTERP_{theirs}")) for ours, theirs in names.items()}


def _reason(error: RuntimeError) -> str:
    """What went wrong, without DALI's stack traces."""
    _, _, cause = str(error).partition("encountered:")
    lines = (cause or str(error)).split("\n")
    return next((line.strip() for line in lines if line.strip()), "no reason given")
