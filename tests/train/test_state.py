"""What a checkpoint gives back, on any number of ranks and however the model is sharded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from reserve.config import TrainConfig
from reserve.errors import CheckpointError
from reserve.model.manifest import read_manifest
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.run_checkpoints import list_checkpoints
from reserve.train.distributed import Ranks, joined_ranks
from reserve.train.export import export_checkpoint
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress, restore_checkpoint
from tests.helpers.old_checkpoints import write_old_checkpoint
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.trained_models import (
    UNTRAINED,
    new_model,
    new_optimizer,
    same_bits,
    train_a_step,
    trained,
    whole_state,
)

ALONE = Ranks(0, 1, torch.device("cpu"))
PROGRESS = Progress(3, 20, 23, 5, "a mixture", 7)


def save(run: Path, model, optimizer, progress: Progress = PROGRESS, ranks: Ranks = ALONE) -> Path:
    with CheckpointWriter(run, model, optimizer, ranks, TrainConfig()) as checkpoints:
        checkpoints.save(progress)
    return list_checkpoints(run)[-1].path


def load(run: Path, ranks: Ranks = ALONE, **options):
    """Another model and optimiser, filled from the run's last checkpoint."""
    model = new_model(seed=9)
    optimizer = new_optimizer(model, **options)
    return model, optimizer, restore_checkpoint(run, model, optimizer, ranks)


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert list_checkpoints(tmp_path) == []
    assert load(tmp_path)[2] == Progress(0)


def test_weights_moments_and_progress_come_back_bit_for_bit(tmp_path):
    model, optimizer = trained(decay_to_start=True)
    save(tmp_path, model, optimizer)
    again, again_optimizer, progress = load(tmp_path, decay_to_start=True)
    assert progress == PROGRESS
    assert same_bits(whole_state(again, again_optimizer), whole_state(model, optimizer))
    # It has no moments, rather than moments of 0, whose step would be another one.
    assert dict(again.named_parameters())[UNTRAINED] not in again_optimizer.state
    for either, its_optimizer in ((model, optimizer), (again, again_optimizer)):
        train_a_step(either, its_optimizer, seed=1)
    assert same_bits(whole_state(again, again_optimizer), whole_state(model, optimizer))


def test_moments_are_loaded_by_name_whatever_the_groups(tmp_path):
    model, optimizer = trained()
    save(tmp_path, model, optimizer)
    again = new_model(seed=9)
    reversed_groups = type(optimizer)(list(again.parameters())[::-1], lr=1e-3)
    restore_checkpoint(tmp_path, again, reversed_groups, ALONE)
    assert same_bits(whole_state(again, reversed_groups), whole_state(model, optimizer))


def test_the_optimizer_keeps_its_own_settings(tmp_path):
    """Otherwise a run resumed with another decay would record it in config.yaml and train with the old one."""
    save(tmp_path, *trained())
    model = new_model()
    other = new_optimizer(model, betas=(0.8, 0.9), eps=1e-3)
    restore_checkpoint(tmp_path, model, other, ALONE)
    assert [(g["weight_decay"], g["betas"], g["eps"]) for g in other.param_groups] == [
        (0.1, (0.8, 0.9), 1e-3),
        (0.0, (0.8, 0.9), 1e-3),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moments": "float32"}, r"has moments in torch.bfloat16; this optimizer keeps them in torch.float32"),
        ({"decay_to_start": True}, r"holds \['m', 'step', 'v'\]; this optimizer keeps \['m', 'start', 'step', 'v'\]"),
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_other_moments_are_refused_and_change_nothing(tmp_path, options, message, old):
    model, optimizer = trained()
    if old:
        write_old_checkpoint(tmp_path / "checkpoints" / "step_00000003", model, optimizer, 3)
    else:
        save(tmp_path, model, optimizer)
    other = new_model(seed=9)
    with pytest.raises(ValueError, match=message):
        restore_checkpoint(tmp_path, other, new_optimizer(other, **options), ALONE)
    assert same_bits(other.state_dict(), new_model(seed=9).state_dict())


def test_the_folder_is_a_pretrained_model(tmp_path):
    model, optimizer = trained()
    folder = save(tmp_path, model, optimizer)
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "optimizer.safetensors", "config.json", "checkpoint.json")
    }
    assert same_bits(MerlotReserve.from_pretrained(folder).state_dict(), model.state_dict())


def test_missing_and_unknown_tensors_are_named(tmp_path):
    model, optimizer = trained()
    model.register_buffer("seen", torch.zeros(2))
    save(tmp_path, model, optimizer)
    with pytest.raises(CheckpointError, match="1 unknown: model/seen"):
        load(tmp_path)
    other = new_model()
    other.register_buffer("kept", torch.zeros(2))
    with pytest.raises(CheckpointError, match="1 missing: model/kept; 1 unknown: model/seen"):
        restore_checkpoint(tmp_path, other, new_optimizer(other), ALONE)
    other = new_model()
    other.register_buffer("seen", torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"1 misshapen: model/seen is \(2,\), not \(3,\)"):
        restore_checkpoint(tmp_path, other, new_optimizer(other), ALONE)


def test_moments_of_a_parameter_that_the_optimizer_lacks_are_named(tmp_path):
    model, optimizer = trained()
    save(tmp_path, model, optimizer)
    other = new_model()
    without_head = type(optimizer)([p for name, p in other.named_parameters() if name != "head.bias"])
    with pytest.raises(CheckpointError, match=r"3 unknown: optimizer/head.bias.m, optimizer/head.bias.step"):
        restore_checkpoint(tmp_path, other, without_head, ALONE)


@pytest.mark.parametrize("place", [{}, {"place": 20, "examples": 23, "seed": 5}], ids=["without place", "with place"])
def test_a_checkpoint_of_an_older_version_is_loaded(tmp_path, place):
    model, optimizer = trained(decay_to_start=True)
    write_old_checkpoint(tmp_path / "checkpoints" / "step_00000003", model, optimizer, 3, **place)
    again, again_optimizer, progress = load(tmp_path, decay_to_start=True)
    assert progress == Progress(3, **place)
    assert same_bits(whole_state(again, again_optimizer), whole_state(model, optimizer))


# Ranks.

LAYOUTS = {2: ("plain", "fsdp"), 4: ("fsdp", "hybrid")}
"""Ways to hold a model, by the number of ranks: whole, sharded, and sharded in two groups alike."""


def sharded(model: MerlotReserve, layout: str) -> MerlotReserve:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    size = dist.get_world_size()
    if layout == "plain":
        return model
    shape = (size,) if layout == "fsdp" else (2, size // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :])
    for layer in model.joint_transformer.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def join(rank: int, world_size: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}


def save_on_rank(rank: int, world_size: int, port: int, runs: dict[str, Path]) -> None:
    """Saves the same state once for each layout."""
    join(rank, world_size, port)
    with joined_ranks("cpu") as ranks:
        for layout, run in runs.items():
            model = sharded(new_model(), layout)
            optimizer = new_optimizer(model)
            train_a_step(model, optimizer)
            save(run, model, optimizer, ranks=ranks)


def load_on_rank(
    rank: int, world_size: int, port: int, runs: list[Path], layouts: tuple[str, ...], expected: Path
) -> None:
    """Loads every run into every layout."""
    join(rank, world_size, port)
    with joined_ranks("cpu") as ranks:
        for run in runs:
            for layout in layouts:
                model = sharded(new_model(seed=9), layout)
                optimizer = new_optimizer(model)
                progress = restore_checkpoint(run, model, optimizer, ranks)
                assert progress.step == 3
                assert same_bits(whole_state(model, optimizer), torch.load(expected)), (run, layout)
                # It trains on: parameters, gradients and state are distributed alike.
                train_a_step(model, optimizer, seed=1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("expected") / "state.pt"
    torch.save(whole_state(*trained()), path)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, int], Path]:
    """A run with the same state for each layout and number of ranks, by (layout, ranks)."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for (size, layouts), port in zip(LAYOUTS.items(), free_ports(2), strict=True):
        own = {layout: folder / f"{layout}{size}" for layout in layouts}
        run_ranks(save_on_rank, size, port, own, world_size=size)
        found |= {(layout, size): run for layout, run in own.items()}
    return found


def test_each_rank_writes_its_shards(runs):
    shards = {("plain", 2): 1, ("fsdp", 2): 2, ("fsdp", 4): 4, ("hybrid", 4): 2}
    for key, run in runs.items():
        folder = list_checkpoints(run)[-1].path
        for part in ("model", "optimizer"):
            names = {path.name for path in folder.glob(f"{part}*.safetensors")}
            of = [f"-{n:05d}-of-{shards[key]:05d}" for n in range(1, shards[key] + 1)] if shards[key] > 1 else [""]
            assert names == {f"{part}{shard}.safetensors" for shard in of}


def test_one_rank_loads_every_layout(runs, expected):
    for run in runs.values():
        model, optimizer, progress = load(run)
        assert progress == PROGRESS
        assert same_bits(whole_state(model, optimizer), torch.load(expected))


def test_every_layout_is_a_pretrained_model(runs):
    expected = trained()[0].state_dict()
    for run in runs.values():
        folder = list_checkpoints(run)[-1].path
        assert same_bits(MerlotReserve.from_pretrained(folder).state_dict(), expected)
        restored, trunk = new_model(seed=9), new_model(seed=9)
        restored.restore(folder)
        trunk.load_trunk(folder)
        assert same_bits(restored.state_dict(), expected)
        assert same_bits(trunk.state_dict(), expected)


def test_shards_are_exported_as_one_file(runs, tmp_path):
    for (layout, size), run in runs.items():
        out = tmp_path / f"{layout}{size}"
        export_checkpoint(list_checkpoints(run)[-1].path, out)
        assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json"}
        assert same_bits(MerlotReserve.from_pretrained(out).state_dict(), trained()[0].state_dict())


def test_a_damaged_shard_is_named_by_from_pretrained(runs, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(list_checkpoints(runs["fsdp", 4])[-1].path, folder)
    path = folder / "model-00003-of-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00003-of-00004.safetensors is damaged: it has \d+ bytes, not"):
        MerlotReserve.from_pretrained(folder)


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_ranks_load_every_layout_into_every_layout(world_size, runs, expected):
    (port,) = free_ports(1)
    layouts = LAYOUTS[world_size]
    run_ranks(load_on_rank, world_size, port, list(runs.values()), layouts, expected, world_size=world_size)


def test_an_old_checkpoint_is_loaded_into_any_layout(expected, tmp_path):
    write_old_checkpoint(tmp_path / "checkpoints" / "step_00000003", *trained(), 3)
    (port,) = free_ports(1)
    run_ranks(load_on_rank, 2, port, [tmp_path], LAYOUTS[2], expected)


def refuse_on_rank(rank: int, world_size: int, port: int, run: Path) -> None:
    join(rank, world_size, port)
    with joined_ranks("cpu") as ranks:
        model = sharded(new_model(), "fsdp")
        with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors is damaged"):
            restore_checkpoint(run, model, new_optimizer(model), ranks)


def test_every_rank_says_what_one_finds(runs, tmp_path):
    shutil.copytree(runs["fsdp", 2], tmp_path / "run")
    path = list_checkpoints(tmp_path / "run")[0].path / "model-00002-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (port,) = free_ports(1)
    run_ranks(refuse_on_rank, 2, port, tmp_path / "run")


def empty_on_rank(rank: int, world_size: int, port: int, run: Path) -> None:
    """Saves and loads a model with parameters without elements."""
    join(rank, world_size, port)
    with joined_ranks("cpu") as ranks:
        models = []
        for seed in (0, 9):
            model = new_model(seed)
            model.register_parameter("no_rows", nn.Parameter(torch.empty(0, 4)))
            model.register_parameter("no_columns", nn.Parameter(torch.empty(4, 0)))
            models.append(sharded(model, "fsdp"))
        saved, loaded = models
        save(run, saved, new_optimizer(saved), ranks=ranks)
        assert restore_checkpoint(run, loaded, new_optimizer(loaded), ranks) == PROGRESS
        assert torch.equal(loaded.head.weight.full_tensor(), saved.head.weight.full_tensor())


def test_parameters_without_elements_are_saved_by_sharded_models(tmp_path):
    (port,) = free_ports(1)
    run_ranks(empty_on_rank, 2, port, tmp_path)
    tensors = read_manifest(list_checkpoints(tmp_path)[0].path).tensors["model"]
    assert (tensors["no_rows"].shape, tensors["no_columns"].shape) == ((0, 4), (4, 0))
