from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reserve.checkpoint.official import save_official
from reserve.cli.app import main
from reserve.cli.zeroshot import TASKS
from tests.helpers.media_files import Sound, write_media
from tests.tasks.zero_shot.small_sets import epic_folder, lsmdc_folder, msrvtt_folder, small_model, star_folder

FOLDERS = {"star": star_folder, "epic-kitchens": epic_folder, "lsmdc": lsmdc_folder, "msrvtt-qa": msrvtt_folder}
assert FOLDERS.keys() == TASKS.keys()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def star(tmp_path_factory) -> Path:
    return star_folder(tmp_path_factory.mktemp("star"))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_from_its_own_files(task, tmp_path, weights, capsys):
    data, out = FOLDERS[task](tmp_path / "data"), tmp_path / "out"
    assert main(["zeroshot", task, f"--data={data}", "--check"]) == 0
    assert main(["zeroshot", task, f"--data={data}", f"--weights={weights}", f"--out={out}", "--device=cpu"]) == 0
    assert f"{task}, val" in capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    assert (scores["task"], scores["split"]) == (task, "val")
    assert all(0 <= score["value"] <= 1 for score in scores["scores"])
    # A score over one video has no interval.
    intervals = [score for score in scores["scores"] if score["low"] is not None]
    assert intervals
    assert all(score["low"] <= score["value"] <= score["high"] for score in intervals)
    assert json.loads((out / "predictions.json").read_text())
    assert len(json.loads((out / "failures.json").read_text())) == (2 if task == "lsmdc" else 0)


def test_settings_of_a_task_are_options(star, weights, tmp_path):
    arguments = [
        f"--data={star}",
        f"--weights={weights}",
        f"--out={tmp_path}",
        "--limit=2",
        "--segment_seconds=5",
        "--workers=2",
    ]
    assert main(["zeroshot", "star", *arguments, "--split=test", "--precision=float32"]) == 0
    assert sum(map(len, json.loads((tmp_path / "predictions.json").read_text()).values())) == 2
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == []


def test_official_weights_are_read(star, tmp_path, capsys, caplog):
    save_official(small_model(), tmp_path / "weights.msgpack")
    (tmp_path / "sizes.yaml").write_text(
        "model: {hidden_size: 64, vit_num_layers: 1, vit_patch_size: 16, output_grid: [2, 4], audio_num_layers: 1, "
        "span_num_layers: 1, joint_num_layers: 1}\n"
    )
    arguments = ["zeroshot", "star", f"--data={star}", f"--weights={tmp_path / 'weights.msgpack'}"]
    assert main([*arguments, f"--out={tmp_path}"]) == 2
    assert "does not say what model it holds; give --sizes base_resadapt" in capsys.readouterr().err
    assert main([*arguments, f"--out={tmp_path}", f"--sizes={tmp_path / 'sizes.yaml'}", "--limit=1"]) == 0
    assert "the released weights need --tokenizer" in caplog.text


def test_a_folder_that_lacks_files_fails_the_check(star, tmp_path, capsys):
    (tmp_path / "STAR_val.json").write_bytes((star / "STAR_val.json").read_bytes())
    assert main(["zeroshot", "star", f"--data={tmp_path}", "--check"]) == 1
    assert "problem: 2 of 2 videos are missing" in capsys.readouterr().out
    assert main(["zeroshot", "star", f"--data={tmp_path / 'none'}", "--check"]) == 1
    assert "STAR_val.json does not exist: the val questions, from STAR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "zeroshot star needs --weights and --out"),
        (["--split=dev"], "--split must be one of train, val, test; got 'dev'"),
        (["--limit=0"], "--limit must be at least 1; got 0"),
        (["--segment_seconds=0"], "--segment_seconds must be at least 0.1 and finite; got 0.0"),
        (["--weights=x", "--out=y", "--precision=fp8"], "precision"),
        (["--weights={weights}", "--out=y", "--sizes=base"], "has its own config.json; leave out --sizes"),
        (["--workers=0"], "--workers must be at least 1; got 0"),
        (["--as_released"], "--as_released must be false for star, whose code was never released"),
        (["--sls_pt=1"], "sls_pt"),
    ],
)
def test_wrong_usage_is_named(star, weights, arguments, message, capsys):
    given = [argument.format(weights=weights) for argument in arguments]
    assert main(["zeroshot", "star", f"--data={star}", *given]) == 2
    assert message in capsys.readouterr().err


def test_videos_are_found_before_weights_are_loaded(star, tmp_path, capsys):
    arguments = [f"--data={star}", f"--weights={tmp_path / 'none'}", f"--out={tmp_path}", f"--videos={tmp_path / 'no'}"]
    assert main(["zeroshot", "star", *arguments]) == 1
    assert "no is not a folder: it must hold the videos, from Charades" in capsys.readouterr().err


def test_what_scoring_and_writing_need_is_checked_before_weights_are_loaded(star, tmp_path, capsys):
    arguments = [f"--weights={tmp_path / 'none'}", "--device=cpu"]
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/out"):
        assert main(["zeroshot", "star", f"--data={star}", *arguments, f"--out={out}"]) == 2
        assert f"--out must be a folder that can be written to; {out}: " in capsys.readouterr().err
    epic = epic_folder(tmp_path / "epic")
    (epic / "EPIC_100_tail_verbs.csv").unlink()
    assert main(["zeroshot", "epic-kitchens", f"--data={epic}", *arguments, f"--out={tmp_path / 'out'}"]) == 1
    assert "EPIC_100_tail_verbs.csv does not exist" in capsys.readouterr().err
    assert main(["zeroshot", "star", f"--data={star}", *arguments, f"--out={tmp_path}", "--tokenizer=none.json"]) == 1
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["zeroshot"], ["zeroshot", "cooking"], ["zeroshot", "star"]])
def test_a_task_and_its_data_are_needed(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("reserve: ")


def test_a_video_that_cannot_be_decoded_is_reported(tmp_path, weights, capsys):
    data = star_folder(tmp_path / "data")
    (data / "Charades_v1_480/AAAAA.mp4").write_bytes(b"nothing")
    assert main(["zeroshot", "star", f"--data={data}", f"--weights={weights}", f"--out={tmp_path / 'out'}"]) == 0
    assert "3 of 6 questions have no answer and count as wrong" in capsys.readouterr().out
    failures = json.loads((tmp_path / "out/failures.json").read_text())
    assert sorted(failures) == ["Feasibility_T1_5", "Interaction_T1_1", "Interaction_T2_2"]
    assert all("AAAAA.mp4: not a media file" in reason for reason in failures.values())


def test_a_track_that_cannot_be_decoded_is_reported(tmp_path, weights, caplog):
    data = star_folder(tmp_path / "data")
    frames = [index / 4 for index in range(40)]
    empty = Sound(np.zeros(0, np.float32), codec="pcm_s16le")
    (data / "Charades_v1_480/AAAAA.mp4").unlink()
    write_media(data / "Charades_v1_480/AAAAA.mkv", frame_times=frames, sounds=[empty])
    assert main(["zeroshot", "star", f"--data={data}", f"--weights={weights}", f"--out={tmp_path / 'out'}"]) == 0
    assert "AAAAA.mkv: no sound can be decoded from its audio track: it is read without sound" in caplog.text
    assert json.loads((tmp_path / "out/failures.json").read_text()) == {}


def test_ranks_share_the_work(star, weights, tmp_path):
    """Two processes write what one writes."""
    arguments = ["zeroshot", "star", f"--data={star}", f"--weights={weights}", "--device=cpu", "--precision=float32"]
    assert main([*arguments, f"--out={tmp_path / 'one'}"]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "reserve"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments, f"--out={tmp_path / 'two'}"], env=environment, check=True)
    for name in ("scores.json", "predictions.json", "failures.json"):
        one, two = (json.loads((tmp_path / folder / name).read_text()) for folder in ("one", "two"))
        assert one == two
