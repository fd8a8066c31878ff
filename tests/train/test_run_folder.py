"""A run's folder: settings that are read back, and a lock that one process holds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

from reserve.config import Config, ModelConfig, TrainConfig
from reserve.errors import RunInUse
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.run_folder import describe_holder, is_running, locked_run, read_run, write_run_settings

CONFIG = Config(model=ModelConfig(hidden_size=128, output_grid=(4, 6)), train=TrainConfig(seed=3))


def test_what_is_written_is_read_back(tmp_path):
    task = Pretrain.of(CONFIG, [tmp_path / "videos"], tmp_path / "a.txt", tmp_path / "b.json")
    write_run_settings(tmp_path, task, CONFIG)
    again, config = read_run(tmp_path)
    assert again == task
    assert (config.optimizer, config.train) == (CONFIG.optimizer, CONFIG.train)


def test_paths_hold_from_any_folder_and_the_run_may_move(tmp_path, monkeypatch):
    start = tmp_path / "start"
    start.mkdir()
    monkeypatch.chdir(start)
    write_run_settings(Path("run"), Pretrain.of(CONFIG, ["videos"], Path("text.txt"), Path("../words.json")), CONFIG)
    (start / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    task, _ = read_run(tmp_path / "moved")
    assert task == Pretrain.of(CONFIG, [start / "videos"], start / "text.txt", tmp_path / "words.json")


def test_a_run_from_before_there_were_tasks_is_pretraining(tmp_path):
    write_run_settings(tmp_path, Pretrain.of(CONFIG, ["videos"]), CONFIG)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("task: pretrain\n", ""))
    assert isinstance(read_run(tmp_path)[0], Pretrain)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "empty file"),
        (lambda text: "#", "must hold sections; got NoneType"),
        (lambda text: "a: [", "is not YAML"),
        (lambda text: "model: {}", "lacks the section data"),
        (lambda text: text.replace("task: pretrain", "task: dance"), "there is no task 'dance'; there are kinetics"),
        (lambda text: text.replace("task: pretrain", "task: [1]"), "task must be a name; got \\[1\\]"),
        (lambda text: text.replace("\nmodel:", "\nmodel: 3\nother:"), "model must be a map"),
        (lambda text: text.replace("hidden_size: 128", "hidden_size: many"), "model.hidden_size must be int"),
        (lambda text: text.replace("hidden_size: 128", "hidden_size: 100"), "must be a multiple of 64"),
        (lambda text: text.replace("hidden_size", "hiden_size"), "hiden_size is not known. Did you mean hidden_size"),
        (lambda text: text.replace("tokenizer: null", "tokenizer: [1]"), "tokenizer must be a path"),
        (lambda text: text.replace("videos:\n-", "videos:\n  a:"), "videos must be a list of paths"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, damage, message):
    write_run_settings(tmp_path, Pretrain.of(CONFIG, ["videos"]), CONFIG)
    path = tmp_path / "config.yaml"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        read_run(tmp_path)
    if message != "must be a multiple of 64":
        assert str(path) in str(caught.value)


def test_binary_data_is_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config\.yaml is not YAML"):
        read_run(tmp_path)


HOLDS = """
import sys
from pathlib import Path
from reserve.train.run_folder import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(holder, tmp_path):
    assert is_running(tmp_path / "run")
    refused = pytest.raises(RunInUse, match=rf"run is in use: process {holder.pid} on .+ \(since 20.+\) trains in it")
    with refused, locked_run(tmp_path / "run", seconds=0):
        pytest.fail("entered")
    # What is refused leaves the holder's file alone.
    assert json.loads((tmp_path / "run" / "running.json").read_text())["pid"] == holder.pid


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert not is_running(tmp_path / "run")
    with locked_run(tmp_path / "run", seconds=0):
        assert is_running(tmp_path / "run")
        assert json.loads((tmp_path / "run" / "running.json").read_text())["pid"] == os.getpid()
    assert not is_running(tmp_path / "run")
    assert not (tmp_path / "run" / "running.json").exists()


def test_the_lock_ends_with_a_failure(tmp_path):
    with pytest.raises(KeyError), locked_run(tmp_path):
        raise KeyError
    assert not is_running(tmp_path)
    assert not (tmp_path / "running.json").exists()


def test_a_folder_that_was_never_run_is_not_running(tmp_path):
    assert not is_running(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}', '{"pid": 3}'])
def test_a_damaged_file_of_the_holder_names_nobody(tmp_path, content):
    (tmp_path / "running.json").write_text(content)
    assert describe_holder(tmp_path) == "another process"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    refused = pytest.raises(OSError, match=f"nothing can be written into the run's folder: No space left.*{tmp_path}")
    with refused, locked_run(tmp_path):
        pytest.fail("entered")


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")])
def test_without_locks_it_warns_and_runs(tmp_path, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with locked_run(tmp_path):
        assert "is on a file system without locks" in caplog.text
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
