"""Stored results of the studies of learning, made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.finetuned import STAR, TVQA, VCR
from benchmarks.learning.finetuning import STARTS
from benchmarks.learning.sounds import FINETUNED, FINETUNED_UNTRAINED, MEL, PROBE, PROBE_UNTRAINED

PROVENANCE = {
    "commit": "0123456789abcdef",
    "changed": False,
    "time": "2026-01-02T03:04:05+00:00",
    "cpu": "A processor",
    "cores": 2,
    "threads": 1,
    "versions": {"torch": "2.11.0", "numpy": "2.0"},
}
VIDEOS, ASKED = 12, 50


def right(rate: float, seed: int) -> list[float]:
    return np.random.default_rng(seed).binomial(ASKED, rate, VIDEOS).astype(float).tolist()


@pytest.fixture
def objectives() -> dict[str, Any]:
    """Contrastive spans learn to 40%, mask LM to 10%, audio off as the first."""
    last = {CONTRASTIVE: 0.4, MASK_LM: 0.1, AUDIO_OFF: 0.4}
    seconds = {CONTRASTIVE: 0.5, MASK_LM: 1.0, AUDIO_OFF: 0.4}
    runs = [
        {
            "settings": {"arm": arm, "seed": seed, "steps": 400, "batch_size": 8},
            "steps": [100, 200, 300, 400],
            "right": [right(last[arm] * point / 4, 10 * seed + point) for point in range(1, 5)],
            "asked": [ASKED] * VIDEOS,
            "chance": 0.01,
            "candidates": {"4": 300},
            "maskings": 4,
            "flops_per_step": 3e10,
            "provenance": PROVENANCE,
        }
        for arm in ARMS
        for seed in range(3)
    ]
    times = {arm: {"step": seconds[arm], "loading": 0.1} for arm in ARMS}
    return {"runs": runs, "step_times": times, "provenance": PROVENANCE}


@pytest.fixture
def finetuning() -> dict[str, Any]:
    """From scratch TVQA is guessed, pretrained models know 60%; sound is known only to models that heard some. The best
    rate of the first seed is 1e-3, except on VCR, where all is alike."""
    kinds = {TVQA: ("audio", "text", "joint"), VCR: ("Q->A", "QA->R")}
    runs: list[dict[str, Any]] = []
    for task, names in kinds.items():
        for number, start in enumerate(STARTS):
            for seed, rate in ((0, 1e-4), (0, 1e-3), (1, 1e-3), (2, 1e-3)):
                known = 0.2 if "scratch" in start or rate < 1e-3 else 0.6
                if task == VCR:
                    known = 0.25
                runs.append(
                    {
                        "settings": {
                            "task": task,
                            "start": start,
                            "seed": seed,
                            "learning_rate": rate,
                            "batch_size": 32,
                        },
                        "right": {
                            kind: right(0.2 if kind == "audio" and start == AUDIO_OFF else known, 100 * number + seed)
                            for kind in names
                        },
                        "asked": [ASKED] * VIDEOS,
                        "examples": 1920,
                        "steps": 30,
                        "last_loss": 1.25,
                        "training_seconds": 80.0,
                        "provenance": PROVENANCE,
                    }
                )
                if seed == 0:
                    right_then = {kind: [4.0 * (rate >= 1e-3)] for kind in names}
                    runs[-1]["tuning"] = {"right": right_then, "asked": [10]}
    runs += [
        {
            "settings": {"task": STAR, "start": start, "seed": seed},
            "right": {"all": right(known, 7 + seed)},
            "asked": [ASKED] * VIDEOS,
            "by_type": {
                kind: {"right": {kind: right(known, 17 + seed)}, "asked": [ASKED] * VIDEOS} for kind in ("One", "Two")
            },
            "chance": 0.25,
            "provenance": PROVENANCE,
        }
        for start, known in ((CONTRASTIVE, 0.5), (AUDIO_OFF, 0.25))
        for seed in range(3)
    ]
    return {"runs": runs, "provenance": PROVENANCE}


@pytest.fixture
def sounds() -> dict[str, Any]:
    """Pretraining helps the frozen encoder; finetuned ones are alike, and mel statistics know more than all."""
    known = {MEL: 0.9, PROBE: 0.7, PROBE_UNTRAINED: 0.4, FINETUNED: 0.6, FINETUNED_UNTRAINED: 0.6}
    runs = [
        {
            "settings": {"set": "ESC-10", "method": method},
            "right": {str(seed): right(rate, seed) for seed in range(1 if method == MEL else 3)},
            "asked": [ASKED] * VIDEOS,
            "classes": 10,
            "rotations": 4,
            "last_part": {"clips": 10, "right": [6, 7]},
            "provenance": PROVENANCE,
        }
        for method, rate in known.items()
    ]
    return {"runs": runs, "provenance": PROVENANCE}
