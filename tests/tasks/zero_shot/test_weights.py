from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch

from reserve.checkpoint.official import save_official
from reserve.config import FinetunedConfig
from reserve.data.tokenizer import Tokenizer
from reserve.errors import CheckpointError, DamagedCheckpoint
from reserve.model.finetuned import FinetunedReserve
from reserve.model.run_checkpoints import checkpoint_folder
from reserve.tasks.zero_shot.weights import load_vocabulary, load_weights
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


def write_run(folder, steps, tokenizer=None):
    """A run's folder with checkpoints whose models differ."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"task: pretrain\ntokenizer: {tokenizer or 'null'}\n")
    models = []
    for step in steps:
        models.append(small_model())
        with torch.no_grad():
            models[-1].head.bias.fill_(step)
        models[-1].save_pretrained(checkpoint_folder(folder, step), step=step)
    return models


def test_of_a_run_the_newest_checkpoint_is_read(tmp_path):
    write_run(tmp_path, [1, 2])
    assert load_weights(tmp_path).head.bias[0] == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    write_run(tmp_path, [1, 2])
    (checkpoint_folder(tmp_path, 2) / "config.json").unlink()
    assert load_weights(tmp_path).head.bias[0] == 1
    assert "the checkpoint before it is taken" in caplog.text
    (checkpoint_folder(tmp_path, 1) / "config.json").unlink()
    with pytest.raises(DamagedCheckpoint, match="step_00000001"):
        load_weights(tmp_path)


def test_folders_without_weights_say_what_they_lack(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither a model's folder nor a run's"):
        load_weights(tmp_path)
    write_run(tmp_path, [])
    with pytest.raises(CheckpointError, match="a run without a checkpoint yet"):
        load_weights(tmp_path)


def test_a_runs_vocabulary_is_the_default_for_its_weights(tmp_path, monkeypatch):
    own = json.loads(files("reserve").joinpath("assets/tokenizer.json").read_text("utf-8"))
    last = max(own["model"]["vocab"], key=own["model"]["vocab"].get)
    del own["model"]["vocab"][last]
    own["model"]["merges"] = [each for each in own["model"]["merges"] if "".join(each).replace(" ", "") != last]
    (tmp_path / "own.json").write_text(json.dumps(own))
    run = tmp_path / "run"
    write_run(run, [1], tmp_path / "own.json")
    size = Tokenizer.load().vocab_size
    assert load_vocabulary(run).vocab_size == size - 1
    assert load_vocabulary(checkpoint_folder(run, 1)).vocab_size == size - 1
    assert load_vocabulary(run, tmp_path / "own.json").vocab_size == size - 1
    monkeypatch.chdir(run)
    assert load_vocabulary(None).vocab_size == size
    assert load_vocabulary("owner/name").vocab_size == size
