"""Completing batches on the device: refused where it cannot be done; on a GPU, on a stream of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.data import dali_pictures
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.ahead import beside_the_step
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.small_shards import make_shard_set
from tests.helpers.small_stores import DATA, MODEL

CONFIG = Config(
    data=DATA,
    model=MODEL,
    train=TrainConfig(batch_size=2, device="cpu", num_workers=0, decode_on="device", log_every=1),
    optimizer=OptimizerConfig(num_train_steps=3, num_warmup_steps=0),
)


def test_a_task_that_decodes_in_its_loader_refuses_it(tmp_path):
    task = Classify(ClassifierConfig(hidden_size=64, vocab_size=32))
    with pytest.raises(ValueError, match=r"train.decode_on device is for pretraining; the task classify decodes"):
        fit(task, tmp_path, CONFIG)
    assert not any(tmp_path.iterdir()), "refused after the run's folder was written"


def test_without_dali_a_run_is_refused_before_anything_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(dali_pictures, "import_failure", lambda: "it is not here")
    with pytest.raises(RuntimeError, match="pictures cannot be decoded by DALI: it is not here"):
        fit(Pretrain.of(CONFIG, [tmp_path]), tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_on_the_cpu_a_batch_is_completed_as_it_is():
    def finish(batch):
        return batch

    assert beside_the_step(finish, torch.device("cpu")) is finish


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sound", ["log_mel", "flac"])
def test_a_run_on_a_gpu_decodes_there(tmp_path, sound):
    """Its losses are near those of a run whose loader decodes."""
    pytest.importorskip("nvidia.dali")
    make_shard_set(tmp_path / "set", (2,), 8, sound)
    losses = []
    for decode_on in ("device", "loader"):
        config = replace(CONFIG, train=replace(CONFIG.train, device="cuda", decode_on=decode_on))
        fit(Pretrain.of(config, shards=[str(tmp_path / "set")]), tmp_path / decode_on, config)
        losses.append([line["loss"] for line in read_metrics(tmp_path / decode_on / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
