"""DALI's pipeline: pieces of video in, chosen frames out, scaled down and with the right colours where asked for.

DALI reads nothing and chooses nothing itself: pieces and frame numbers are fed to it, batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, cast

import numpy as np

Device = Literal["cpu", "mixed"]
MAX_PIECES = 8
"""Pieces that are decoded at once."""
THREADS = 8
"""CPU threads of a pipeline, at most."""


class Variant(NamedTuple):
    """What a pipeline does: decode on the CPU, or on a GPU ("mixed"), then resize and mend colours or not."""

    device: Device
    is_scaled: bool
    is_mended: bool


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece as a file (uint8 [bytes]), the `numbers` of the frames wanted, the `size` (height, width) to scale them
    to, and the matrix [3, 3] of `mending_matrix` for their colours."""

    file: np.ndarray
    numbers: Sequence[int]
    size: tuple[int, int]
    colours: np.ndarray | None


class PipelineFailure(RuntimeError):
    """DALI could not decode a batch; the message is DALI's."""


class Pipelines:
    """One pipeline for each variant, built when it is first needed. `threads` CPU threads each."""

    def __init__(self, threads: int) -> None:
        self._threads = min(threads, THREADS)
        self._built: dict[Variant, Any] = {}

    def decode(self, variant: Variant, clips: Sequence[Clip]) -> list[np.ndarray]:
        """The frames of up to MAX_PIECES clips: uint8 RGB [frames, height, width, 3] for each.

        Raises PipelineFailure if DALI fails on any of them.
        """
        inputs: dict[str, list[np.ndarray]] = {
            "files": [clip.file for clip in clips],
            "numbers": [np.array(clip.numbers, dtype=np.int32) for clip in clips],
        }
        if variant.is_scaled:
            inputs["sizes"] = [np.array(clip.size, dtype=np.float32) for clip in clips]
        if variant.is_mended:
            inputs["colours"] = [np.eye(3, dtype=np.float32) if c.colours is None else c.colours for c in clips]
        try:
            if variant not in self._built:
                self._built[variant] = _build(variant, self._threads)
            (frames,) = self._built[variant].run(**inputs)
            found = frames.as_cpu() if variant.device == "mixed" else frames
            # Copies: DALI uses its memory again.
            return [np.array(found.at(place)) for place in range(len(clips))]
        except RuntimeError as error:
            # DALI's pipelines are of no use after an error.
            self._built.pop(variant, None)
            raise PipelineFailure(str(error)) from error

    def close(self) -> None:
        """Frees all pipelines."""
        self._built.clear()


def _build(variant: Variant, threads: int) -> Any:
    # Its stubs lack constants and options.
    dali, fn, types = (cast(Any, import_module(f"nvidia.dali{name}")) for name in ("", ".fn", ".types"))

    @dali.pipeline_def(
        batch_size=MAX_PIECES,
        num_threads=threads,
        device_id=0 if variant.device == "mixed" else None,
        prefetch_queue_depth=1,
        exec_dynamic=True,
    )
    def graph() -> Any:
        files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(name="numbers", dtype=types.INT32, ndim=1)
        # A number beyond the end is an error, not a black picture. Threads stay free to move.
        options: dict[str, Any] = {"affine": False} if variant.device == "mixed" else {}
        frames = fn.decoders.video(files, frames=numbers, device=variant.device, pad_mode="none", **options)
        if variant.is_scaled:
            sizes = fn.external_source(name="sizes", dtype=types.FLOAT, ndim=1)
            frames = fn.resize(frames, size=sizes, interp_type=types.INTERP_CUBIC, antialias=True)
        if variant.is_mended:
            colours = fn.external_source(name="colours", dtype=types.FLOAT, ndim=2)
            frames = fn.coord_transform(frames, M=colours, dtype=types.UINT8)
        return frames

    pipeline = graph()
    pipeline.build()
    return pipeline
