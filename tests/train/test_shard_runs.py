"""Runs from shards: resumed in mid-epoch with other workers and ranks, through damage, with other mixtures."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from reserve.cli.app import main
from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.config.load import read_yaml
from reserve.errors import BadInput
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from reserve.train.run_folder import read_run
from tests.helpers.file_server import FileServer
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.small_shards import make_shard_set
from tests.helpers.small_stores import DATA, MODEL
from tests.train.compare_runs import losses_of

STEPS = 6


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[str, str]:
    """Ten examples in three shards, of which one has a damaged sample, and eight in one."""
    folder = tmp_path_factory.mktemp("sets")
    make_shard_set(folder / "talks", (2, 0, 3), 8)
    make_shard_set(folder / "songs", (4,), 8)
    tar = folder / "talks" / "shard-00002.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    return str(folder / "talks"), str(folder / "songs")


def train(run: Path, shards: tuple[str, ...], steps: int, workers: int = 0, weights=(2.0, 1.0), **settings) -> None:
    config = Config(
        data=DATA,
        model=MODEL,
        train=TrainConfig(
            batch_size=4,
            device="cpu",
            precision="float32",
            num_workers=workers,
            log_every=1,
            checkpoint_every=1,
            keep_checkpoints=STEPS,
            seed=5,
            **settings,
        ),
        optimizer=OptimizerConfig(num_train_steps=steps, num_warmup_steps=0),
    )
    fit(Pretrain.of(config, shards=shards, shard_weights=weights), run, config)


def losses(run: Path) -> list[dict[str, float]]:
    return [losses_of(line) for line in read_metrics(run / "metrics.jsonl")]


@pytest.fixture(scope="module")
def uninterrupted(sets, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(run, sets, STEPS)
    return run


def interrupted(finished: Path, run: Path, step: int) -> Path:
    """A copy of a run as it was when it was stopped after `step` steps."""
    shutil.copytree(finished, run)
    for checkpoint in list_checkpoints(run):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)
    return run


def test_a_run_resumed_with_other_workers_is_the_same(sets, uninterrupted, tmp_path, caplog):
    """In mid-epoch of both sets: in all nine digits of its losses, and in what was skipped."""
    run = interrupted(uninterrupted, tmp_path / "first", 2)
    train(run, sets, STEPS, workers=2)
    run = interrupted(run, tmp_path / "second", 4)
    train(run, sets, STEPS, workers=1)
    assert [line["step"] for line in losses(run)] == list(range(1, STEPS + 1))
    assert losses(run) == losses(uninterrupted)
    skipped = losses(run)[-1]["skipped_examples"]
    assert skipped >= 1
    progress = json.loads((list_checkpoints(run)[-1].path / "checkpoint.json").read_text())["progress"]
    assert (progress["place"], progress["examples"], progress["skipped"]) == (4 * STEPS, 18, skipped)
    assert not [record for record in caplog.records if record.name == "reserve.train.resuming"]
    named = {record.getMessage() for record in caplog.records if record.name == "reserve.data.loader"}
    assert len(named) == 1
    assert "talks/shard-00002.tar: video-" in named.pop()


def train_as_rank(rank: int, port: int, run: Path, sets: tuple[str, str]) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    train(run, sets, STEPS, workers=1)


def test_a_run_resumed_on_two_ranks_sees_the_same_examples(sets, uninterrupted, tmp_path):
    """Its sums are in another order."""
    run = interrupted(uninterrupted, tmp_path / "run", 3)
    run_ranks(train_as_rank, free_ports(1)[0], run, sets)
    for found, expected in zip(losses(run), losses(uninterrupted), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found.get("skipped_examples") == expected.get("skipped_examples")


@pytest.mark.parametrize("change", ["weights", "sets"])
def test_another_mixture_begins_an_epoch_with_a_warning(sets, uninterrupted, tmp_path, caplog, change):
    run = interrupted(uninterrupted, tmp_path / "run", 2)
    with caplog.at_level(logging.INFO):
        train(run, *((sets[::-1], 3) if change == "sets" else (sets, 3)), weights=(1.0, 1.0))
    assert "the sets of examples or their weights changed, and with them the order" in caplog.text
    assert "starting epoch 2" in caplog.text
    progress = json.loads((list_checkpoints(run)[-1].path / "checkpoint.json").read_text())["progress"]
    assert progress["place"] == 18 + 4


def test_a_set_that_was_moved_goes_on(sets, tmp_path, caplog):
    first = tmp_path / "first"
    make_shard_set(first, (3,), 8)
    train(tmp_path / "run", (str(first),), 1, weights=())
    first.rename(tmp_path / "second")
    train(tmp_path / "run", (str(tmp_path / "second"),), 2, weights=())
    assert "the order of the examples" not in caplog.text
    progress = json.loads((list_checkpoints(tmp_path / "run")[-1].path / "checkpoint.json").read_text())["progress"]
    assert progress["place"] == 8


def test_a_shard_that_vanishes_stops_the_run(tmp_path):
    make_shard_set(tmp_path / "set", (2, 2), 8)
    (tmp_path / "set" / "shard-00001.tar").unlink()
    with pytest.raises(BadInput, match=f"^{tmp_path}/set/shard-00001.tar: No such file"):
        train(tmp_path / "run", (str(tmp_path / "set"),), 9, workers=1, weights=())


def test_a_run_from_a_url_is_the_run_from_the_folder(sets, uninterrupted, tmp_path):
    """And a second one reads nothing but manifests and settings again, and what was damaged: it may be mended."""
    pytest.importorskip("aiohttp")
    server = FileServer(Path(sets[0]).parent)
    cache = {"shard_cache": tmp_path / "cache", "shard_cache_gb": 0.01}
    with server.running() as url:
        distant = (f"{url}/talks", f"{url}/songs")
        train(tmp_path / "one", distant, STEPS, workers=1, **cache)
        assert losses(tmp_path / "one") == losses(uninterrupted)
        server.requests.clear()
        train(tmp_path / "two", distant, 2, **cache)
        again = {Path(name).name for _, name, _ in server.requests}
        assert again <= {"manifest.json", "settings.json", "shard-00002.tar"}
        assert sum(name.endswith("shard-00002.tar") for _, name, _ in server.requests) <= losses(tmp_path / "two")[
            -1
        ].get("skipped_examples", 0)
        # The folder's run goes on at the URL.
        resumed = interrupted(uninterrupted, tmp_path / "resumed", 4)
        train(resumed, distant, STEPS, **cache)
    assert losses(resumed) == losses(uninterrupted)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*")) <= 10**7


# The command line.


def settings_of(capsys, *arguments: str) -> dict:
    assert main(["pretrain", *arguments, "--print_config"]) == 0
    path = Path(os.environ["PRINTED"])
    path.write_text(capsys.readouterr().out)
    return read_yaml(path)


@pytest.fixture
def printed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PRINTED", str(tmp_path / "printed.yaml"))
    return lambda *arguments: settings_of(capsys, *arguments)


def test_shards_on_the_command_line_replace_those_of_a_file(printed, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("shards: [s3://bucket/a, /b]\nshard_weights: [1, 2]\n")
    assert printed("--config", str(file))["shards"] == ["s3://bucket/a", "/b"]
    assert printed("--config", str(file))["shard_weights"] == [1.0, 2.0]
    found = printed("--config", str(file), "--shards", "/c")
    assert (found["shards"], found["shard_weights"]) == (["/c"], [])
    found = printed("--config", str(file), "--shard_weights", "3", "1")
    assert (found["shards"], found["shard_weights"]) == (["s3://bucket/a", "/b"], [3.0, 1.0])
    found = printed("--config", str(file), "--videos", "/v")
    assert found["videos"] == ["/v"]
    assert "shards" not in found


def test_the_cache_is_a_setting(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert printed()["train"]["shard_cache"] is None
    found = printed("--train.shard_cache", "cache", "--train.shard_cache_gb", "0.5")["train"]
    assert (found["shard_cache"], found["shard_cache_gb"]) == (str(tmp_path / "cache"), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "v", "--shards", "s"], "pretrain takes --videos or --shards, not both"),
        ([], "pretrain needs --videos or --shards, and --out"),
        (["--shards", "s", "--shard_weights", "1", "2"], "shard_weights must be one a set of shards; got 2 for 1"),
        (["--shards", "s", "--train.shard_cache_gb", "0"], "train.shard_cache_gb must be above 0 and finite; got 0"),
    ],
)
def test_wrong_usage_is_explained(capsys, tmp_path, arguments, message):
    assert main(["pretrain", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_a_run_keeps_its_shards(uninterrupted, sets):
    task, config = read_run(uninterrupted)
    assert (task.shards, task.shard_weights) == (sets, (2.0, 1.0))
    assert config.train.shard_cache is None


def test_a_run_is_evaluated_on_shards(uninterrupted, sets, capsys):
    assert main(["evaluate", str(uninterrupted), "--shards", sets[1]]) == 0
    assert (uninterrupted / "report.html").is_file()
    assert main(["evaluate", str(uninterrupted), "--shards", sets[1], "--videos", "v"]) == 2
    assert main(["evaluate", str(uninterrupted)]) == 2
    assert "needs either --videos or --shards" in capsys.readouterr().err


def test_a_run_whose_device_decodes_is_resumed_the_same(sets, uninterrupted, tmp_path):
    """DALI decodes a batch ahead, and what was skipped for that batch is not counted yet."""
    pytest.importorskip("nvidia.dali")
    train(tmp_path / "whole", sets, STEPS, decode_on="device")
    run = interrupted(tmp_path / "whole", tmp_path / "resumed", 3)
    train(run, sets, STEPS, workers=1, decode_on="device")
    assert losses(run) == losses(tmp_path / "whole")
    skipped = [[line.get("skipped_examples") for line in losses(each)] for each in (run, uninterrupted)]
    assert skipped[0] == skipped[1]
    for found, expected in zip(losses(run), losses(uninterrupted), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=0.05)
