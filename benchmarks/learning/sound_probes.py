"""What a linear classifier gets out of sounds: of their mel statistics, and of an audio encoder's frozen outputs."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.learning.sound_sets import Sounds
from reserve.model.encoders import AudioEncoder

STRENGTHS = np.logspace(-4, 2, 7)
"""Inverse strengths of the regularisation, of which cross-validation chooses."""
FOLDS = 3
MAX_ITERATIONS = 3000


def mel_statistics(windows: torch.Tensor) -> np.ndarray:
    """Mean and standard deviation of each mel band over the frames of windows [n, windows, 60, 65]: float [n, 128]."""
    frames = windows[..., :-1].flatten(1, 2)
    return torch.cat((frames.mean(1), frames.std(1)), dim=-1).numpy()


def encoded(encoder: AudioEncoder, windows: torch.Tensor) -> torch.Tensor:
    """CLS and mean pooled token of each window, averaged over the windows: [n, 2 * hidden]."""
    out = encoder(windows.flatten(0, 1))
    each = torch.cat((out.cls, out.pooled.mean(1)), dim=-1)
    return each.unflatten(0, windows.shape[:2]).mean(1)


def probe(features: np.ndarray, sounds: Sounds) -> np.ndarray:
    """Whether logistic regression is right about each clip, bool [n], trained on the parts that it is not in.

    Features are standardised, and the regularisation is chosen by cross-validation on the clips that it is trained on;
    clips of one source stay together in that, too.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = np.zeros(len(features), dtype=bool)
    for train, test in sounds.rotations():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
        splits = GroupKFold(FOLDS).split(features[train], sounds.labels[train], sounds.source[train])
        search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=list(splits))
        search.fit(features[train], sounds.labels[train])
        right[test] = search.predict(features[test]) == sounds.labels[test]
    return right
