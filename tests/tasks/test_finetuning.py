from __future__ import annotations

import logging
import math

import pytest
import torch

from reserve.checkpoint.official import save_official
from reserve.config import FinetunedConfig, OptimizerConfig
from reserve.errors import CheckpointError
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.finetuning import check_scales, finetuning_optimizer, schedule, stored_sizes
from reserve.tasks.vcr.task import Vcr
from tests.helpers.tiny import tiny


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "steps", "warmup"),
    [
        (212736, 32, 5, 33240, 3324),  # VCR's, of the release
        (122112, 32, 3, 11448, 1908),  # TVQA's
        (100, 32, 1, 3, 1),
        (100, 32, 0.1, 1, 1),
        (32, 32, 2, 2, 0),
    ],
)
def test_the_schedule_counts_whole_batches(examples, batch, epochs, steps, warmup):
    made = schedule(OptimizerConfig(learning_rate=3e-5), examples, batch, epochs)
    assert (made.num_train_steps, made.num_warmup_steps) == (steps, warmup)
    assert made.learning_rate == 3e-5


def test_too_few_examples_for_a_batch_are_an_error():
    with pytest.raises(ValueError, match="batch_size must be at most the 31 examples of the training set; got 32"):
        schedule(OptimizerConfig(), 31, 32, 1)


def test_the_optimiser_is_finetunings():
    made = finetuning_optimizer(1e-5)
    assert (made.do_bias_correction, made.use_bfloat16_adam, made.max_grad_norm) == (True, True, 0)
    assert (made.beta_1, made.beta_2, made.eps, made.weight_decay_rate) == (0.9, 0.98, 1e-6, 0.1)


@pytest.mark.parametrize(
    "scales", [(0.0, 1.1), (1.2, 1.1), (1.0, math.inf), (math.nan, 1.1), (1.0, math.nan), (-1.0, 1.0)]
)
def test_scales_are_checked(scales):
    check_scales(1.0, 1.0)
    with pytest.raises(ValueError, match=r"examples.random_scale_min must be above 0 and at most"):
        check_scales(*scales)


def test_the_sizes_of_weights_come_from_their_folder(tmp_path):
    MerlotReserve(tiny()).save_pretrained(tmp_path / "folder")
    assert stored_sizes(str(tmp_path / "folder")) == tiny()
    assert Vcr.model_config(tiny()) == FinetunedConfig(**tiny().__dict__, with_audio=False)
    (tmp_path / "official").write_bytes(b"x")
    assert stored_sizes(str(tmp_path / "official")) is None
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="is a run; name one of its checkpoints"):
        stored_sizes(str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="is neither a folder nor an id"):
        stored_sizes(str(tmp_path / "none"))


@pytest.mark.parametrize("official", [True, False])
def test_training_starts_from_either_format(official, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pretrained = MerlotReserve(tiny())
    if official:
        save_official(pretrained, tmp_path / "start", dtype="float32")
    else:
        pretrained.save_pretrained(tmp_path / "start")
    task = Vcr(weights=str(tmp_path / "start"), model=Vcr.model_config(tiny()))
    model = task.build_model()
    task.load_start(model)
    assert torch.equal(model.token_embedding.weight, pretrained.token_embedding.weight)
    assert ("the released weights need --tokenizer" in caplog.text) is official
    assert task.has_start
    assert not Vcr().has_start
