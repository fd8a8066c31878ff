"""Conversions between the official format, pretrained folders and checkpoints of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reserve.checkpoint.convert import convert
from reserve.checkpoint.official import save_official
from reserve.config.load import config_file, preset_names
from reserve.config.official import load_model_config
from reserve.errors import CheckpointError
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny

MODEL = """
model:
  hidden_size: 64
  vocab_size: 20
  vit_num_layers: 1
  vit_patch_size: 4
  output_grid: [2, 2]
  audio_num_layers: 1
  span_num_layers: 1
  joint_num_layers: 1
"""


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(tiny(output_grid=(2, 2)))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize("name", ["base", "base.msgpack"])
def test_official_to_folder_and_back_to_the_byte(name: str, model: MerlotReserve, config: Path, tmp_path: Path) -> None:
    save_official(model, tmp_path / name, step=1234)
    convert(tmp_path / name, tmp_path / "new" / "folder", config)
    convert(tmp_path / "new" / "folder", tmp_path / "again.msgpack")
    assert (tmp_path / "again.msgpack").read_bytes() == (tmp_path / name).read_bytes()


def test_checkpoint_of_a_run_to_a_folder_of_weights(model: MerlotReserve, tmp_path: Path) -> None:
    run = tmp_path / "run" / "checkpoints" / "step_00000100"
    model.save_pretrained(run, step=100)
    (run / "trainer.pt").write_bytes(b"the trainer's")
    convert(run, tmp_path / "weights")
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "weights" / name).read_bytes() == (run / name).read_bytes()


def test_run_in_place_of_its_checkpoint_is_explained(model: MerlotReserve, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run" / "checkpoints" / "step_00000100")
    with pytest.raises(CheckpointError, match=r"is a run; name one of its checkpoints \(step_00000100\)"):
        convert(tmp_path / "run", tmp_path / "out")


def test_weights_in_place_of_their_folder_are_explained(model: MerlotReserve, config: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "folder")
    with pytest.raises(CheckpointError, match=r"model.safetensors does not say what model it holds; name the folder"):
        convert(tmp_path / "folder" / "model.safetensors", tmp_path / "out.msgpack", config)
    with pytest.raises(ValueError, match=r"out.safetensors: weights are stored in a folder .*; name a folder"):
        convert(tmp_path / "folder", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_existing_target_is_kept(model: MerlotReserve, config: Path, tmp_path: Path) -> None:
    save_official(model, tmp_path / "base")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="out already exists"):
        convert(tmp_path / "base", tmp_path / "out", config)


def test_official_needs_a_configuration(model: MerlotReserve, tmp_path: Path) -> None:
    save_official(model, tmp_path / "base")
    with pytest.raises(ValueError, match="does not say what model it holds; give --config"):
        convert(tmp_path / "base", tmp_path / "out")


def test_folder_takes_no_configuration(model: MerlotReserve, config: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match=r"has its own config.json"):
        convert(tmp_path / "folder", tmp_path / "out", config)


def test_unknown_configuration_is_named(model: MerlotReserve, tmp_path: Path) -> None:
    save_official(model, tmp_path / "base")
    with pytest.raises(ValueError, match=r"there is no configuration huge\. Presets are base, base_resadapt, large"):
        convert(tmp_path / "base", tmp_path / "out", "huge")


def test_wrong_configuration_leaves_no_target(model: MerlotReserve, config: Path, tmp_path: Path) -> None:
    save_official(model, tmp_path / "base")
    config.write_text(MODEL.replace("joint_num_layers: 1", "joint_num_layers: 2"))
    with pytest.raises(CheckpointError, match="joint_transformer/layer_01"):
        convert(tmp_path / "base", tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_absent_source_is_named(config: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent: cannot be opened: No such file"):
        convert(tmp_path / "absent", tmp_path / "out", config)


@pytest.mark.parametrize("name", preset_names())
def test_packaged_configurations_can_be_named(name: str) -> None:
    assert load_model_config(config_file(name)).hidden_size % 64 == 0
