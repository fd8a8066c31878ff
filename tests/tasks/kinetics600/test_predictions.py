"""Top-1 and top-5 accuracy, and the best classes of a clip."""

from __future__ import annotations

import json

import numpy as np

from reserve.tasks.kinetics600.predictions import best_classes, kinetics_scores, write_predictions


def test_scores_resample_source_videos():
    rng = np.random.default_rng(0)
    made = [best_classes(f"v_{n // 2}_000000_0000{n % 2}0", rng.random(10), n % 10) for n in range(40)]
    top = {score.name: score for score in kinetics_scores(made, 10)}

    assert top["top-1"].value == np.mean([p.classes[0] == p.label for p in made])
    assert top["top-5"].value == np.mean([p.label in p.classes for p in made])
    assert top["top-5"].chance == 0.5
    assert top["top-1"].low <= top["top-1"].value <= top["top-1"].high


def test_of_equal_probabilities_the_first_class_counts():
    assert best_classes("x_0_1", np.array([0.2, 0.4, 0.4]), 1).classes == (1, 2, 0)


def test_the_file_holds_the_best_labels(tmp_path):
    probabilities = np.array([0.1, 0.05, 0.4, 0.25, 0.15, 0.05])
    labels = ["a", "b", "c", "d", "é", "f"]

    write_predictions(tmp_path / "p.json", [best_classes("x_0_1", probabilities, -1)], labels)

    (best,) = json.loads((tmp_path / "p.json").read_text("utf-8")).values()
    assert [entry["label"] for entry in best] == ["c", "d", "é", "a", "b"]
    assert best[0]["score"] == 0.4


def test_clips_without_a_label_do_not_count():
    top_1, _ = kinetics_scores([best_classes(f"v{n}_0_1", np.array([0.9, 0.1]), n - 1) for n in range(3)], 2)

    assert (top_1.value, top_1.count) == (0.5, 2)
