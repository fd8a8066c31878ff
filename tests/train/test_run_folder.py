"""config.yaml: what a run says about itself, read back, and refused where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from reserve.config import Config, ModelConfig, TrainConfig
from reserve.train.run_folder import RunFiles, read_run_config, write_run_config

CONFIG = Config(model=ModelConfig(hidden_size=128, output_grid=(4, 6)), train=TrainConfig(seed=3))


def test_what_is_written_is_read_back(tmp_path):
    files = RunFiles(
        [str(tmp_path / "videos")], tmp_path, random_text=tmp_path / "a.txt", tokenizer=tmp_path / "b.json"
    )
    write_run_config(files, CONFIG)
    assert read_run_config(tmp_path) == (CONFIG, files)


def test_paths_hold_from_any_folder_and_the_run_may_move(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_run_config(RunFiles(["videos"], Path("run"), Path("text.txt"), Path("../words.json")), CONFIG)
    (tmp_path / "here" / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    _, files = read_run_config(tmp_path / "moved")
    assert files == RunFiles(
        [str(tmp_path / "here" / "videos")], tmp_path / "moved", tmp_path / "here" / "text.txt", tmp_path / "words.json"
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "", "must hold sections; got NoneType"),
        (lambda text: "a: [", "is not YAML"),
        (lambda text: "model: {}", "lacks the section data"),
        (lambda text: text.replace("\nmodel:", "\nmodel: 3\nother:"), "model must be a map"),
        (lambda text: text.replace("hidden_size: 128", "hidden_size: many"), "model.hidden_size must be int"),
        (lambda text: text.replace("hidden_size: 128", "hidden_size: 100"), "must be a multiple of 64"),
        (lambda text: text.replace("hidden_size", "hiden_size"), "model.hiden_size is not known"),
        (lambda text: text.replace("tokenizer: null", "tokenizer: [1]"), "tokenizer must be a path"),
        (lambda text: text.replace("videos:\n-", "videos:\n  a:"), "videos must be a list of paths"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, damage, said):
    write_run_config(RunFiles(["videos"], tmp_path), CONFIG)
    path = tmp_path / "config.yaml"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=said) as caught:
        read_run_config(tmp_path)
    if said != "must be a multiple of 64":
        assert str(path) in str(caught.value)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config\.yaml is not YAML"):
        read_run_config(tmp_path)
