"""Kinetics-600's clips as examples, a function of (seed, epoch, index)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reserve.config import FinetunedConfig
from reserve.data.float_images import finetuning_image
from reserve.errors import BadInput, DamagedSample
from reserve.tasks.kinetics600.batch import Example
from reserve.tasks.kinetics600.stored import KineticsSettings, prepare_clip, read_view
from reserve.tasks.record_cache import Parts, RecordCache

logger = logging.getLogger(__name__)


class KineticsDataset:
    """Clips asked for as (epoch, index).

    With `training`, an example is one view, drawn at random, of pictures that are scaled and cropped at random, and a
    damaged clip raises DamagedSample: the loader takes another one. Without, it is all views, and a damaged clip gives
    an example that is not readable.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        cache: RecordCache,
        model: FinetunedConfig,
        settings: KineticsSettings,
        *,
        seed: int = 0,
        training: bool,
    ) -> None:
        # Not Path objects: there are hundreds of thousands, and every loading process has them.
        self.paths, self.labels = [str(path) for path in paths], np.array(labels, dtype=np.int64)
        self.cache, self.model, self.settings = cache, model, settings
        self.seed, self.training = seed, training

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        if not self.training:
            return self._all_views(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        try:
            parts = self._parts(index)
        except BadInput as error:
            raise DamagedSample(str(error)) from error
        view = int(rng.integers(self.settings.views))
        return self._example(index, parts, [view], rng)

    def _all_views(self, index: int) -> Example:
        try:
            parts = self._parts(index)
        except BadInput as error:
            logger.warning("a clip cannot be read: %s", error)
            shape = (self.settings.views, self.settings.segments, *self.model.image_size, 3)
            return Example(np.zeros(shape, np.float32), None, int(self.labels[index]), is_readable=False)
        return self._example(index, parts, range(self.settings.views), None)

    def _parts(self, index: int) -> Parts:
        path = Path(self.paths[index])
        key = f"{path.stem} {self.settings.stored_form}"
        return self.cache.get(key, lambda: prepare_clip(path, self.settings), [path])

    def _example(self, index: int, parts: Parts, views: Sequence[int], rng: np.random.Generator | None) -> Example:
        scales = (self.settings.random_scale_min, self.settings.random_scale_max)
        images, sounds = [], []
        for view in views:
            frames, sound = read_view(parts, view, self.settings.segments)
            images.append([finetuning_image(f, self.model.image_size, rng=rng, scale_range=scales) for f in frames])
            sounds.append(sound)
        heard = [sound for sound in sounds if sound is not None] if self.model.with_audio else []
        return Example(np.array(images), np.stack(heard) if heard else None, int(self.labels[index]))
