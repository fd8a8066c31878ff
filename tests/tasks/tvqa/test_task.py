"""TVQA from its files to predictions."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import replace

import pytest
import torch

from reserve.config import FitConfig, OptimizerConfig, TrainConfig
from reserve.errors import BadInput
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks import find_task
from reserve.tasks.task import HeldOut
from reserve.tasks.tvqa.dataset import TvqaSettings
from reserve.tasks.tvqa.task import Tvqa
from reserve.train.evaluate import evaluate_run
from reserve.train.fit import fit
from reserve.train.run_folder import read_run
from tests.helpers.tvqa_folder import SIZES

TRAIN = TrainConfig(
    batch_size=4, num_workers=0, device="cpu", precision="float32", compile="none", log_every=1, checkpoint_every=100
)


def settings(steps, **changes):
    optimizer = OptimizerConfig(
        learning_rate=2e-3, num_train_steps=steps, num_warmup_steps=2, do_bias_correction=True, weight_decay_rate=0.0
    )
    return FitConfig(optimizer=optimizer, train=replace(TRAIN, **changes))


def task(folder, **changes):
    return Tvqa(data=folder, model=SIZES, **changes)


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_handful_of_questions_is_learnt_and_predicted(tvqa_folder, tmp_path):
    run = tmp_path / "run"

    fit(task(tvqa_folder), run, settings(20))

    values = losses(run)
    assert values[0] > 2.5
    assert values[-1] < 0.5
    # Val's clips show the same colours.
    scores = evaluate_run(run, [str(tvqa_folder)])
    assert scores["joint accuracy"].value == 1
    assert scores["joint accuracy"].count == 4
    assert scores["text accuracy"].chance == 0.2
    evaluate_run(run, [], split="test")
    (folder,) = (run / "predictions").glob("step_20_*")
    with zipfile.ZipFile(folder / "submission_joint.zip") as file:
        assert sorted(file.namelist()) == ["meta.json", "prediction_test_public.json", "prediction_val.json"]
        assert json.loads(file.read("prediction_val.json")) == {"000020": 0, "000021": 1, "000022": 2, "000023": 3}
        assert list(json.loads(file.read("prediction_test_public.json"))) == ["000120", "000121", "000122", "000123"]
        meta = json.loads(file.read("meta.json"))
    assert meta["with_ts"] is True
    assert meta.keys() >= {"model_name", "is_ensemble", "show_on_leaderboard", "author", "institution", "description"}
    assert {path.name for path in folder.glob("*.zip")} == {f"submission_{k}.zip" for k in ("audio", "text", "joint")}


def test_the_release_sums_over_the_examples_of_a_device(tvqa_folder, tmp_path):
    default, released = task(tvqa_folder), task(tvqa_folder, as_released=True)
    default.prepare(tmp_path, TRAIN)
    dataset = default.training_set(tmp_path, TRAIN)
    batch = default.collate([dataset[0, index] for index in range(4)])
    torch.manual_seed(0)
    model = default.build_model()

    mean, total = (each.loss(model, batch, None) for each in (default, released))

    torch.testing.assert_close(total.total, 4 * mean.total)
    # What is logged stays the mean.
    torch.testing.assert_close(total.metrics["loss"], mean.total.detach())
    with pytest.raises(ValueError, match=r"train\.accumulate .* must be 1; got 2"):
        released.prepare(tmp_path, replace(TRAIN, accumulate=2))


def test_incomplete_clips_are_left_out_and_counted(changed_folder, tmp_path, caplog):
    (changed_folder / "audios/castle/castle_audios/castle_s01e01_seg01_clip_00.mp3").unlink()
    run = tmp_path / "run"
    run.mkdir()

    with caplog.at_level(logging.WARNING):
        task(changed_folder).prepare(run, TRAIN)

    assert "1 of 4 questions of the split train are left out" in caplog.text
    assert "1 of 4 clips have no sound" in caplog.text
    dataset = task(changed_folder).training_set(run, TRAIN)
    assert task(changed_folder).count_examples() == len(dataset) == 3
    assert [dataset.question(i).qid for i in range(3)] == [11, 12, 13]


def test_a_folder_without_media_is_refused(changed_folder, tmp_path):
    import shutil

    shutil.rmtree(changed_folder / "tvqa_frames")

    with pytest.raises(BadInput, match=r"all files of no clip .* 4 of 4 clips have no pictures .*tvqa\.cs\.unc\.edu"):
        task(changed_folder).prepare(tmp_path, TRAIN)


def test_predictions_of_two_models_are_not_joined(tvqa_folder, tmp_path):
    for seed, split in enumerate(("val", "test")):
        torch.manual_seed(seed)
        held_out = HeldOut([], tmp_path, split=split)
        task(tvqa_folder).evaluate(FinetunedReserve(SIZES), held_out, config=TRAIN, step=0)
    assert len(list(tmp_path.glob("step_0_*"))) == 2
    assert not list(tmp_path.rglob("submission_*.zip"))


def test_runs_share_a_cache(tvqa_folder, tmp_path):
    shared = task(tvqa_folder, examples=TvqaSettings(cache=tmp_path / "shared"))
    fit(shared, tmp_path / "run", settings(2))
    assert list((tmp_path / "shared").rglob("*.zip"))
    assert not (tmp_path / "run" / "examples").exists()
    assert read_run(tmp_path / "run")[0] == shared


def test_check_describes_a_good_folder(tvqa_folder):
    report = task(tvqa_folder).check(Tvqa.splits)

    assert report.problems == []
    assert "train: 4 questions about 4 clips" in report.lines
    assert "val: clips with sound: 4 of 4" in report.lines


def test_check_names_what_is_missing_or_damaged(changed_folder):
    (changed_folder / "tvqa_qa_release/tvqa_test_public.jsonl").unlink()
    (changed_folder / "tvqa_subtitles/met_s01e01_seg01_clip_00.srt").unlink()
    (changed_folder / "audios/castle/castle_audios/castle_s02e01_seg01_clip_00.mp3").write_bytes(b"no sound")

    problems = "\n".join(task(changed_folder).check(Tvqa.splits).problems)

    assert "tvqa_test_public.jsonl does not exist" in problems
    assert "train: 1 of 4 clips have no subtitles" in problems
    assert "castle_s02e01_seg01_clip_00.mp3: " in problems


def test_subtitles_may_be_in_one_file(changed_folder, tmp_path):
    lines = []
    for path in (changed_folder / "tvqa_subtitles").iterdir():
        lines.append({"vid_name": path.stem, "sub": [{"text": "Quite so.", "start": 3, "end": 4.5}]})
        path.unlink()
    (changed_folder / "tvqa_preprocessed_subtitles.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    task(changed_folder).prepare(tmp_path, TRAIN)

    example = task(changed_folder).training_set(tmp_path, TRAIN)[0, 0]

    assert (example.text.segments == 2).any()


def test_a_model_without_sound_is_refused():
    with pytest.raises(ValueError, match=r"model\.with_audio"):
        Tvqa(model=replace(SIZES, with_audio=False))
    with pytest.raises(ValueError, match=r"model\.audio_token_length must be 6 for TVQA; got 5"):
        Tvqa(model=replace(SIZES, audio_token_length=5))


def test_the_task_is_found_and_rebuilt_from_its_settings(tvqa_folder):
    original = task(tvqa_folder, as_released=True)

    again = find_task("tvqa").from_settings(original.settings(), "a test")

    assert again == original
