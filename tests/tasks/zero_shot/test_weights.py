from __future__ import annotations

import pytest
import torch

from reserve.checkpoint.official import save_official
from reserve.config import FinetunedConfig
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.zero_shot.weights import load_weights
from tests.helpers.tiny import TINY
from tests.tasks.zero_shot.small_sets import small_model

SIZES = """model: {hidden_size: 64, vit_num_layers: 1, vit_patch_size: 16, output_grid: [2, 4], audio_num_layers: 1,
  span_num_layers: 1, joint_num_layers: 1}
"""


def test_folders_and_official_files_give_the_same_model(tmp_path):
    model = small_model().half().float()  # official files hold float16
    model.save_pretrained(tmp_path / "folder")
    save_official(model, tmp_path / "weights.msgpack")
    (tmp_path / "sizes.yaml").write_text(SIZES)
    for found in (
        load_weights(str(tmp_path / "folder")),
        load_weights(str(tmp_path / "weights.msgpack"), str(tmp_path / "sizes.yaml")),
    ):
        assert not found.training
        assert torch.equal(found.head.weight, model.head.weight)


def test_sizes_are_for_official_files_alone(tmp_path):
    small_model().save_pretrained(tmp_path / "folder")
    (tmp_path / "weights.msgpack").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has its own config\.json; leave out --sizes"):
        load_weights(str(tmp_path / "folder"), "base")
    with pytest.raises(ValueError, match="does not say what model it holds; give --sizes base_resadapt"):
        load_weights(str(tmp_path / "weights.msgpack"))


def test_finetuned_weights_are_refused(shared_dir, tmp_path):
    path = shared_dir / "golden/tvqa.ckpt.msgpack"
    (tmp_path / "sizes.yaml").write_text(
        "model: {hidden_size: 128, vocab_size: 2048, vit_num_layers: 2, output_grid: [4, 6], audio_num_layers: 1, "
        "span_num_layers: 1, joint_num_layers: 2}\n"
    )
    with pytest.raises(CheckpointError, match="is finetuned: it lacks the head and the span encoder"):
        load_weights(str(path), str(tmp_path / "sizes.yaml"))


def test_a_finetuned_folder_is_refused(tmp_path):
    own = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    FinetunedReserve(FinetunedConfig(**own)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="head"):
        load_weights(str(tmp_path))
