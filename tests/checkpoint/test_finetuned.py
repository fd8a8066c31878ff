"""Finetuned official checkpoints: parts missing, `proj` added (SPEC 10.2)."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reserve.checkpoint.convert import convert
from reserve.checkpoint.official import load_official, load_trunk, official_tree, read_official, save_official
from reserve.config import FinetunedConfig
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny

SIZES = tiny(output_grid=(2, 2))
YAML = "model: {hidden_size: 64, vocab_size: 20, vit_num_layers: 1, vit_patch_size: 4, output_grid: [2, 2], "
YAML += "audio_num_layers: 1, span_num_layers: 1, joint_num_layers: 1}\n"


def finetuned(*, with_audio: bool, outputs: int = 1) -> FinetunedReserve:
    torch.manual_seed(0)
    return FinetunedReserve(FinetunedConfig(**asdict(SIZES), with_audio=with_audio, outputs=outputs))


def parts(model: MerlotReserve) -> set[str]:
    return set(official_tree(model))


def assert_same_weights(ours: MerlotReserve, theirs: MerlotReserve) -> None:
    expected = dict(theirs.named_parameters())
    assert [name for name, _ in ours.named_parameters()] == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in ours.named_parameters())


@pytest.mark.parametrize("with_audio", [True, False])
@pytest.mark.parametrize("outputs", [1, 5])
def test_the_file_says_what_the_model_lacks(with_audio: bool, outputs: int, tmp_path: Path) -> None:
    model = finetuned(with_audio=with_audio, outputs=outputs)
    save_official(model, tmp_path / "finetuned", dtype="float32")
    # The sizes are those of the pretrained model, as a user has them.
    loaded = load_official(tmp_path / "finetuned", SIZES)
    assert isinstance(loaded, FinetunedReserve)
    assert loaded.config == model.config
    assert_same_weights(loaded, model)


def test_the_parts_are_those_of_the_release() -> None:
    without = {"joint_transformer", "vision_encoder", "token_encoder", "contrastive_scales", "proj"}
    assert parts(finetuned(with_audio=False)) == without
    assert parts(finetuned(with_audio=True)) == without | {"audio_encoder"}
    assert official_tree(finetuned(with_audio=False, outputs=3))["proj"]["kernel"].shape == (64, 3)


def test_a_part_that_is_there_in_pieces_is_an_error(tmp_path: Path) -> None:
    tree = official_tree(finetuned(with_audio=True))
    del tree["audio_encoder"]["embedding"]
    with pytest.raises(CheckpointError, match=r"2 missing: audio_encoder/embedding/bias"):
        load_official({"params": tree}, SIZES)
    tree = official_tree(finetuned(with_audio=False)) | {"head": {"bias": np.zeros(64, np.float32)}}
    with pytest.raises(CheckpointError, match=r"1 unknown: head/bias"):
        load_official({"params": tree}, SIZES)


@pytest.mark.parametrize("shape", [(3, 1), (), (64,), (64, 0), (64, 1, 1)])
def test_a_head_of_a_wrong_shape_is_an_error(shape: tuple[int, ...]) -> None:
    tree = official_tree(finetuned(with_audio=False))
    tree["proj"]["kernel"] = np.zeros(shape, np.float32)
    with pytest.raises(CheckpointError, match=r"misshapen: proj/kernel is .*, not \(64, 1\)"):
        load_official({"params": tree}, SIZES)


@pytest.mark.parametrize("with_audio", [True, False])
def test_conversion_to_a_folder_and_back_is_exact(with_audio: bool, tmp_path: Path) -> None:
    (tmp_path / "sizes.yaml").write_text(YAML)
    save_official(finetuned(with_audio=with_audio), tmp_path / "finetuned", step=77)
    convert(tmp_path / "finetuned", tmp_path / "folder", tmp_path / "sizes.yaml")
    assert isinstance(FinetunedReserve.from_pretrained(tmp_path / "folder"), FinetunedReserve)
    convert(tmp_path / "folder", tmp_path / "again.msgpack")
    assert (tmp_path / "again.msgpack").read_bytes() == (tmp_path / "finetuned").read_bytes()


def test_the_recorded_checkpoints_are_read(shared_dir: Path) -> None:
    sizes = tiny(hidden_size=128, vocab_size=2048, vit_patch_size=16, output_grid=(4, 6))
    sizes = replace(sizes, vit_num_layers=2, joint_num_layers=2)
    vcr = load_official(shared_dir / "golden" / "vcr.ckpt.msgpack", sizes)
    tvqa = load_official(shared_dir / "golden" / "tvqa.ckpt.msgpack", sizes)
    assert parts(tvqa) - parts(vcr) == {"audio_encoder"}
    assert type(load_official(shared_dir / "golden" / "tasks.ckpt.msgpack", sizes)) is MerlotReserve


def test_finetuning_starts_from_a_pretrained_checkpoint(tmp_path: Path) -> None:
    pretrained = MerlotReserve(SIZES)
    save_official(pretrained, tmp_path / "base", dtype="float32")
    model = finetuned(with_audio=False)
    head = model.proj.weight.clone()
    load_trunk(model, read_official(tmp_path / "base").arrays)
    assert torch.equal(model.proj.weight, head)
    expected = dict(pretrained.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters() if name != "proj.weight")


def test_finetuning_starts_from_a_finetuned_checkpoint_with_its_head() -> None:
    other = finetuned(with_audio=True)
    with torch.no_grad():
        other.proj.weight.fill_(0.5)
    arrays = read_official({"params": official_tree(other, "float32")}).arrays
    model = finetuned(with_audio=False)
    load_trunk(model, arrays)
    assert (model.proj.weight == 0.5).all()
    classifier = finetuned(with_audio=False, outputs=4)
    head = classifier.proj.weight.clone()
    load_trunk(classifier, arrays)
    assert torch.equal(classifier.proj.weight, head)


def test_a_start_that_lacks_a_part_is_an_error() -> None:
    arrays = read_official({"params": official_tree(finetuned(with_audio=False))}).arrays
    with pytest.raises(CheckpointError, match=r"missing: audio_encoder/"):
        load_trunk(finetuned(with_audio=True), arrays)


@pytest.mark.parametrize("name", ["base", "large", "base_resadapt", "large_resadapt"])
def test_sizes_go_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match="does not fit the configuration"):
        load_official({"params": official_tree(finetuned(with_audio=False))}, name)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no configuration huge"):
        load_official({"params": {}}, "huge")
