from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reserve.cli.app import main
from reserve.config import Config, TrainConfig
from reserve.data.order import epoch_order
from reserve.errors import RESUMABLE
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.train.distributed import Ranks
from reserve.train.metrics import read_metrics
from reserve.train.run_state import locked_run
from reserve.train.training import _warn_of_spinning_threads

QUICK = [
    "--config=tiny",
    "--train.batch_size=2",
    "--train.num_workers=0",
    "--train.prepare_workers=1",
    "--train.log_every=1",
    "--optimizer.num_warmup_steps=1",
    "--model.hidden_size=64",
    "--model.joint_num_layers=1",
    "--model.vit_num_layers=1",
    "--model.audio_num_layers=1",
]

PATIENCE = 3600.0
"""Seconds until a run counts as hanging: far more than the slowest machine takes."""


def pretrain(videos: Path, out: Path, *arguments: str) -> int:
    return main(["pretrain", *QUICK, "--videos", str(videos), "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def run(narrated_videos, tmp_path_factory) -> Path:
    """A run of 4 steps with a checkpoint after 2."""
    out = tmp_path_factory.mktemp("run")
    status = pretrain(narrated_videos / "train", out, "--optimizer.num_train_steps=4", "--train.checkpoint_every=2")
    assert status == 0
    return out


@pytest.fixture
def prepared(run, tmp_path) -> Path:
    """A folder for another run, in which the videos are prepared already."""
    shutil.copytree(run / "prepared", tmp_path / "run" / "prepared")
    return tmp_path / "run"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")


def test_run_folder_explains_itself(run):
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4]
    losses = {"loss", "imgs_to_audio", "text_to_audio", "stuff_to_span"}
    scales = {"scale_imgs_to_audio", "scale_text_to_audio", "scale_stuff_to_span"}
    speed = {"examples_per_second", "seconds_per_step", "tokens_per_second", "tflops"}
    spent = {"seconds", "seconds_waiting", "share_waiting", "seconds_saving", "seconds_evaluating"}
    for line in read_metrics(run / "metrics.jsonl"):
        assert losses | scales | speed | spent | {"learning_rate", "gradient_norm", "peak_memory_gb"} <= line.keys()
        assert line["gradient_norm"] > 0
        assert line["scale_stuff_to_span"] == pytest.approx(math.exp(2.5), rel=0.1)
        assert line["epoch"] == line["step"] * 2 / 4
        assert 0 <= line["share_waiting"] <= 1
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [2, 4]
    assert (run / "config.yaml").is_file()
    assert list((run / "tensorboard").glob("events*"))
    statuses = [json.loads(line)["status"] for line in (run / "files.jsonl").read_text().splitlines()]
    assert statuses == ["prepared", "prepared"]


def test_resuming_gives_what_an_unbroken_run_gives(run, tmp_path):
    """From the checkpoint after 2 steps: the same weights after 4, to the bit, and each step logged once."""
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_00000004")
    assert main(["pretrain", "--resume", str(resumed)]) == 0
    ours, expected = (weights(list_checkpoints(r)[-1].path) for r in (resumed, run))
    assert list_checkpoints(resumed)[-1].step == 4
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert [line["step"] for line in read_metrics(resumed / "metrics.jsonl")] == [1, 2, 3, 4]


STEPS = ("--optimizer.num_train_steps=4", "--train.checkpoint_every=2")


@pytest.mark.parametrize("restarted", [False, True], ids=["--auto_resume", "torchrun's restart"])
def test_the_same_command_again_resumes(run, narrated_videos, tmp_path, monkeypatch, restarted):
    """A setting that was changed by hand since then, and that the command does not give, is kept."""
    resumed = shutil.copytree(run, tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints" / "step_00000004")
    settings = (resumed / "config.yaml").read_text()
    (resumed / "config.yaml").write_text(settings.replace("keep_checkpoints: 3", "keep_checkpoints: 1"))
    if restarted:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this launch")
        state = json.loads((resumed / "state.json").read_text())
        (resumed / "state.json").write_text(json.dumps(state | {"launch": "this launch"}))
    assert pretrain(narrated_videos / "train", resumed, *STEPS, *(() if restarted else ("--auto_resume",))) == 0
    assert [checkpoint.step for checkpoint in list_checkpoints(resumed)] == [4]
    ours, expected = (weights(list_checkpoints(r)[-1].path) for r in (resumed, run))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_restart_does_not_resume_a_run_that_another_launch_began(run, narrated_videos, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this launch")
    assert pretrain(narrated_videos / "train", run, *STEPS) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_auto_resume_starts_a_run_that_is_not_there(narrated_videos, prepared):
    assert pretrain(narrated_videos / "train", prepared, "--auto_resume", "--optimizer.num_train_steps=1") == 0
    assert list_checkpoints(prepared)[-1].step == 1


def test_auto_resume_needs_the_folder(narrated_videos, capsys):
    assert main(["pretrain", *QUICK, "--videos", str(narrated_videos / "train"), "--auto_resume"]) == 2
    assert "--auto_resume needs --out on the command line" in capsys.readouterr().err


def test_without_auto_resume_a_run_that_is_there_is_refused(run, narrated_videos, capsys):
    assert pretrain(narrated_videos / "train", run, *STEPS) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_run_that_another_process_trains_is_refused(run, capsys):
    before = (run / "config.yaml").stat().st_mtime_ns
    with locked_run(run), pytest.MonkeyPatch.context() as patched:
        patched.setattr("reserve.train.fit.locked_run", lambda folder: locked_run(folder, seconds=0))
        assert main(["pretrain", "--resume", str(run), "--optimizer.num_train_steps=5"]) == 1
    assert f"{run} is in use: process {os.getpid()} on " in capsys.readouterr().err
    assert (run / "config.yaml").stat().st_mtime_ns == before
    assert list_checkpoints(run)[-1].step == 4


def test_a_signal_during_set_up_ends_the_command(prepared, narrated_videos, monkeypatch, capsys):
    def prepare(self, run, config):
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr("reserve.tasks.pretrain.task.Pretrain.prepare", prepare)
    assert pretrain(narrated_videos / "train", prepared) == RESUMABLE
    assert "reserve: stopped by SIGUSR1 before the first step" in capsys.readouterr().err


def test_resuming_with_another_batch_size_trains_on_the_next_examples(narrated_videos, prepared, monkeypatch):
    """There are four examples, and three steps of two: half of the second epoch is left."""
    used, original = [], PretrainDataset.__getitem__
    monkeypatch.setattr(PretrainDataset, "__getitem__", lambda self, key: (used.append(key), original(self, key))[1])
    assert pretrain(narrated_videos / "train", prepared, "--optimizer.num_train_steps=3") == 0
    resume = ["pretrain", f"--resume={prepared}", "--train.batch_size=1", "--optimizer.num_train_steps=6"]
    assert main(resume) == 0
    orders = [[(epoch, int(i)) for i in epoch_order(4, 0, epoch)] for epoch in range(3)]
    assert used == [*orders[0], *orders[1], orders[2][0]]


def test_resume_continues_in_the_folder_it_names(run, tmp_path, monkeypatch):
    """A run that was copied, from another folder: neither the original nor that folder gets anything."""
    before = (run / "config.yaml").read_bytes()
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["pretrain", "--resume=../copy", "--optimizer.num_train_steps=5"]) == 0
    assert list_checkpoints(tmp_path / "copy")[-1].step == 5
    assert list_checkpoints(run)[-1].step == 4
    assert (run / "config.yaml").read_bytes() == before
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--model.hidden_size=128", "is of a model with hidden_size 64, not 128"),
        ("--optimizer.use_bfloat16_adam=false", "the state has moments in"),
    ],
)
def test_settings_that_do_not_fit_the_checkpoint_are_refused_and_not_kept(run, capsys, setting, message):
    before = (run / "config.yaml").read_bytes()
    assert main(["pretrain", "--resume", str(run), setting]) == 1
    assert message in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(("option", "content"), [("tokenizer", "{}"), ("random_text", "\0")])
def test_bad_files_are_named_before_the_videos_are_prepared(narrated_videos, tmp_path, capsys, option, content):
    (tmp_path / "bad").write_text(content)
    assert pretrain(narrated_videos / "train", tmp_path / "run", f"--{option}={tmp_path / 'bad'}") == 1
    assert str(tmp_path / "bad") in capsys.readouterr().err
    assert not (tmp_path / "run" / "files.jsonl").exists()


def test_a_finished_run_is_not_trained_again_by_resume(run):
    before = (list_checkpoints(run)[-1].path / "model.safetensors").stat().st_mtime_ns
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert (list_checkpoints(run)[-1].path / "model.safetensors").stat().st_mtime_ns == before


def test_an_existing_run_is_not_overwritten(run, narrated_videos, capsys):
    assert pretrain(narrated_videos / "train", run) == 2
    assert f"--resume {run}" in capsys.readouterr().err


def test_the_seed_decides_the_run(run, narrated_videos, prepared, tmp_path):
    assert pretrain(narrated_videos / "train", prepared, "--optimizer.num_train_steps=4") == 0
    assert (
        pretrain(narrated_videos / "train", tmp_path / "other", "--optimizer.num_train_steps=4", "--train.seed=1") == 0
    )
    expected = weights(list_checkpoints(run)[-1].path)
    again = weights(list_checkpoints(prepared)[-1].path)
    other = weights(list_checkpoints(tmp_path / "other")[-1].path)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert not torch.equal(other["head.weight"], expected["head.weight"])


def test_too_few_examples_for_a_batch_is_an_error(narrated_videos, prepared, capsys):
    assert pretrain(narrated_videos / "train", prepared, "--train.batch_size=64") == 1
    assert "train.batch_size 64 on 1 device(s) needs 64 examples; the data set has" in capsys.readouterr().err


def test_bad_videos_are_named_and_the_rest_is_used(narrated_videos, tmp_path, capsys):
    folder = tmp_path / "videos"
    shutil.copytree(narrated_videos / "train", folder)
    (folder / "broken.mp4").write_bytes(b"not a video")
    assert pretrain(folder, tmp_path / "run", "--optimizer.num_train_steps=1") == 0
    printed = capsys.readouterr().err
    assert "broken.mp4" in printed
    assert "1 skipped" in printed
    assert "Traceback" not in printed


def test_a_run_whose_every_file_fails_says_why(tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert pretrain(tmp_path / "broken.mp4", tmp_path / "run") == 1
    assert "none of the 1 files could be used" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "files.jsonl").read_text())["status"] == "skipped"


def _start(videos: Path, out: Path, *settings: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    arguments = ["pretrain", *QUICK, "--videos", str(videos), "--out", str(out), "--optimizer.num_train_steps=100000"]
    arguments += settings
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "reserve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )


def _wait_for_metrics(out: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not ((out / "metrics.jsonl").exists() and len(read_metrics(out / "metrics.jsonl")) >= 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "no step"
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 0), (signal.SIGUSR1, 1)])
def test_a_signal_saves_and_exits(narrated_videos, prepared, number, workers):
    """Ctrl-C, and a scheduler's signals, reach the loading processes too: they must not die before the step is done.

    The run starts with SIGINT ignored, as `nohup … &` and a shell's background jobs start programs.
    """
    process = _start(narrated_videos / "train", prepared, f"--train.num_workers={workers}")
    try:
        _wait_for_metrics(prepared, process)
        os.killpg(process.pid, number) if workers else process.send_signal(number)
        _, printed = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == RESUMABLE, printed
    assert f"stopped by {number.name}" in printed
    (checkpoint,) = list_checkpoints(prepared)
    assert checkpoint.step == read_metrics(prepared / "metrics.jsonl")[-1]["step"]


@pytest.mark.slow
def test_two_processes_train_together(narrated_videos, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2")
    process = _start(narrated_videos / "train", tmp_path, launcher=launcher)
    try:
        _wait_for_metrics(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert len(list_checkpoints(tmp_path)) == 1


@pytest.mark.parametrize(("policy", "workers", "warned"), [(None, 1, True), ("PASSIVE", 1, False), (None, 0, False)])
def test_a_warning_about_spinning_openmp_threads(policy, workers, warned, monkeypatch, caplog):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    _warn_of_spinning_threads(Config(train=TrainConfig(num_workers=workers)), Ranks(0, 1, torch.device("cpu")))
    assert ("OMP_WAIT_POLICY=PASSIVE" in caplog.text) == warned
