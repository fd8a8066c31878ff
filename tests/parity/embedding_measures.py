"""embed_video on every grid and number of segments, against the float64 restatement and against itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from reserve.checkpoint.official import load_official
from reserve.config import DataConfig
from tests.helpers.plain_model import PlainModel
from tests.helpers.random_batches import random_weights
from tests.helpers.random_videos import PADDING, random_video, restated
from tests.helpers.tiny import tiny
from tests.parity.figures import Figure, relative
from tests.parity.golden import Golden

GRIDS = [(12, 20), (18, 32), (24, 24)]
SEGMENTS = range(1, 9)
CONFIG = tiny(vocab_size=50, output_grid=(12, 20))


@torch.no_grad()
def embeddings(_: Golden) -> list[Figure]:
    """The worst of 1 to 8 segments on each grid. The reference's recordings do not cover these."""
    weights = random_weights(CONFIG, np.random.default_rng(0))
    model = load_official(weights, CONFIG).double()
    figures = []
    for grid in GRIDS:
        config = replace(CONFIG, output_grid=grid)
        plain = PlainModel({k: torch.from_numpy(v).double() for k, v in weights.items()}, config, DataConfig())
        worst = {"against the restatement": 0.0, "alone and among others": 0.0, "norm": 0.0, "padding": 0.0}
        for segments in SEGMENTS:
            arguments = random_video(CONFIG, segments, grid, dtype=torch.float64)
            ours = model.embed_video(**arguments)
            vectors, padding = ours[:, :-PADDING], ours[:, -PADDING:]
            alone = model.embed_video(**{name: value[:1] for name, value in arguments.items()})
            measured = {
                "against the restatement": relative(vectors.numpy(), restated(plain, arguments)[:, :-PADDING].numpy()),
                "alone and among others": relative(alone.numpy(), ours[:1].numpy()),
                "norm": float((vectors.norm(dim=-1) - 1).abs().max()),
                "padding": float(padding.abs().max()),
            }
            worst = {name: max(value, measured[name]) for name, value in worst.items()}
        place = f"grid {grid[0]} x {grid[1]}, 1 to 8 segments"
        figures += [
            Figure(f"{place}: against the restatement", "relative error", worst["against the restatement"], 1e-9),
            Figure(f"{place}: alone and among others", "relative error", worst["alone and among others"], 1e-9),
            # The 1e-5 under the root makes them a little shorter.
            Figure(f"{place}: length of the vectors", "largest distance from 1", worst["norm"], 1e-4),
            Figure(f"{place}: padding", "largest magnitude", worst["padding"], 0),
        ]
    return figures
