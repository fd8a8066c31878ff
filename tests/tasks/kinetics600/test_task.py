"""Kinetics-600 from its files to predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from reserve.config import FitConfig, OptimizerConfig, TrainConfig
from reserve.errors import BadInput
from reserve.tasks import find_task
from reserve.tasks.kinetics600.batch import Example
from reserve.tasks.kinetics600.stored import KineticsSettings
from reserve.tasks.kinetics600.task import Kinetics600
from reserve.train.evaluate import evaluate_run
from reserve.train.fit import fit
from reserve.train.run_folder import read_run
from tests.helpers.kinetics_folder import LABELS, SIZES, write_rows

TRAIN = TrainConfig(
    batch_size=3, num_workers=0, device="cpu", precision="float32", compile="none", log_every=1, checkpoint_every=100
)


def settings(steps):
    optimizer = OptimizerConfig(
        learning_rate=2e-3, num_train_steps=steps, num_warmup_steps=1, do_bias_correction=True, weight_decay_rate=0.0
    )
    return FitConfig(optimizer=optimizer, train=TRAIN)


def task(folder, **changes):
    return Kinetics600(data=folder, model=SIZES, **changes)


def test_a_handful_of_clips_is_learnt_and_predicted(kinetics_folder, tmp_path):
    run = tmp_path / "run"

    fit(task(kinetics_folder), run, settings(40))

    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] > 0.9
    assert losses[-1] < 0.3
    scores = evaluate_run(run, [str(kinetics_folder)])
    assert scores["top-1"].value == 1
    assert scores["top-1"].count == 3
    assert scores["top-1"].chance == pytest.approx(1 / 3)
    assert scores["top-5"].value == 1
    assert "3 views of each clip are averaged" in scores.notes
    predictions = json.loads((run / "predictions" / "kinetics600_val.json").read_text())
    best = predictions["val-_arch__000100_000110"]
    assert best[0]["label"] == "archery"
    assert sum(entry["score"] for entry in best) == pytest.approx(1, abs=1e-5)
    assert [entry["score"] for entry in best] == sorted((entry["score"] for entry in best), reverse=True)


def test_unreadable_clips_are_left_out_of_the_scores(changed_folder, tmp_path):
    run = tmp_path / "run"
    fit(task(changed_folder), run, settings(1))
    (changed_folder / "val" / "val-_arch__000100_000110.mp4").write_bytes(b"damaged")
    (changed_folder / "val" / "val-_zumb__000100_000110.mp4").unlink()

    scores = evaluate_run(run, [])

    assert scores["top-1"].count == 1
    notes = "\n".join(scores.notes)
    assert "1 of 3 clips of the split val are missing" in notes
    assert "1 clips cannot be read" in notes
    assert list(json.loads((run / "predictions" / "kinetics600_val.json").read_text())) == ["val-_acti__000100_000110"]


def test_a_split_without_labels_is_predicted(changed_folder, tmp_path):
    run = tmp_path / "run"
    fit(task(changed_folder), run, settings(1))
    path = changed_folder / "kinetics-600_test.csv"
    path.write_text("".join(line.partition(",")[2] + "\n" for line in path.read_text().splitlines()))

    scores = evaluate_run(run, [], split="test")

    assert scores.scores == ()
    assert len(json.loads((run / "predictions" / "kinetics600_test.json").read_text())) == 3


def test_the_data_decides_the_classes(kinetics_folder, tmp_path):
    unfitted = task(kinetics_folder, weights=None)
    unfitted = replace(unfitted, model=replace(SIZES, outputs=1))

    assert unfitted.fitted_to_data().model.outputs == len(LABELS)
    with pytest.raises(ValueError, match=r"model\.outputs must be 3, .*; got 1"):
        unfitted.prepare(tmp_path, TRAIN)


def test_a_run_keeps_its_clips(changed_folder, tmp_path):
    original = task(changed_folder)
    original.prepare(tmp_path, TRAIN)
    rows = [("zumba", "new", 0, 10, "train")]
    write_rows(changed_folder / "kinetics-600_train.csv", rows)

    dataset = original.training_set(tmp_path, TRAIN)

    assert len(dataset) == 6
    assert dataset.labels.tolist() == [1, 1, 2, 2, 0, 0]


def test_runs_share_a_cache(kinetics_folder, tmp_path):
    shared = task(kinetics_folder, examples=KineticsSettings(cache=tmp_path / "shared"))
    fit(shared, tmp_path / "run", settings(1))
    assert list((tmp_path / "shared").rglob("*.zip"))
    assert not (tmp_path / "run" / "examples").exists()
    assert read_run(tmp_path / "run")[0] == shared


def test_check_describes_a_good_folder(kinetics_folder):
    report = task(kinetics_folder).check(Kinetics600.splits)

    assert report.problems == []
    assert report.lines == [
        "3 classes, from acting in play to zumba",
        "train: 6 clips",
        "val: 3 clips",
        "test: 3 clips",
    ]


def test_check_names_what_is_missing_or_damaged(changed_folder):
    (changed_folder / "kinetics-600_test.csv").unlink()
    (changed_folder / "val" / "val-_zumb__000100_000110.mp4").unlink()
    first = next((changed_folder / "train" / "archery").iterdir())
    first.write_bytes(b"damaged")

    problems = "\n".join(task(changed_folder).check(Kinetics600.splits).problems)

    assert "has none of kinetics-600_test.csv" in problems
    assert "1 of 3 clips of the split val are missing" in problems
    assert f"{first}: " in problems


def test_check_needs_the_classes(tmp_path):
    (problem,) = task(tmp_path).check(Kinetics600.splits).problems

    assert "has none of kinetics-600_train.csv" in problem


def test_a_folder_without_clips_is_refused(tmp_path):
    write_rows(tmp_path / "train.csv", [(label, "abc", 0, 10, "train") for label in LABELS])

    with pytest.raises(BadInput, match="no clip of the split train that can be used"):
        task(tmp_path).prepare(tmp_path, TRAIN)


def test_nothing_was_released():
    with pytest.raises(ValueError, match="as_released must be false"):
        Kinetics600(as_released=True)


def test_the_task_is_found_and_rebuilt_from_its_settings(kinetics_folder):
    original = task(kinetics_folder)

    assert find_task("kinetics600").from_settings(original.settings(), "a test") == original


@pytest.mark.parametrize("with_audio", [True, False])
def test_a_batch_without_sound_trains_the_audio_encoder_with_zeros(with_audio):
    own = Kinetics600(model=replace(SIZES, with_audio=with_audio))
    silent = own.collate([Example(np.ones((1, 2, *SIZES.image_size, 3), np.float32), None, 0)])
    assert (silent.audio_clips is not None) == with_audio
    model = own.build_model()
    loss = own.loss(model, silent, None).total
    loss.backward()
    if with_audio:
        assert not any(p.grad.any() for n, p in model.audio_encoder.named_parameters() if "cls_projection" not in n)
        silent.audio_clips = None
        torch.testing.assert_close(own.loss(model, silent, None).total, loss)
