"""config.yaml: a run's task and settings, read back, and refused where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from reserve.config import Config, ModelConfig, TrainConfig
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.run_folder import read_run, write_run_settings

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
