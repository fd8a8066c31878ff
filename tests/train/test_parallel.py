"""Wrapping a model: which mode runs where, what it gathers, and that it computes what one process computes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._pytree import tree_leaves

from reserve.batch.movable import Movable
from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.data.loader import BatchSampler, load_batches
from reserve.model.pretrained import Pretrained
from reserve.model.transformer import Layer, Transformer
from reserve.tasks.kinetics600.batch import Example
from reserve.tasks.task import Loss
from reserve.train.compilation import compile_layers
from reserve.train.distributed import Ranks
from reserve.train.fit import fit
from reserve.train.optimizer import make_optimizer
from reserve.train.parallel import MODES, Wrapping, parallelize
from reserve.train.step import train_step
from tests.helpers.finetuning_batches import finetuned_task
from tests.helpers.random_pretrain import random_run
from tests.helpers.ranks import run_ranks
from tests.helpers.tiny import tiny

ALONE = Ranks(0, 1, torch.device("cpu"))
ONE_OF_TWO = Ranks(0, 2, torch.device("cpu"))
BF16 = torch.bfloat16


def squared(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) ** 2).sum()


@pytest.mark.parametrize("mode", ["auto", "ddp", "fsdp"])
def test_on_one_rank_it_is_the_loss_of_the_model(mode):
    model, batch = nn.Linear(3, 2), torch.randn(4, 3)
    module = parallelize(model, squared, ALONE, mode=mode)
    assert torch.equal(module(batch), squared(model, batch))
    assert {id(p) for p in module.parameters()} == {id(p) for p in model.parameters()}


def test_an_unknown_mode_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="must be one of 'auto', 'ddp', 'fsdp'; got 'fsdp9'"):
        parallelize(nn.Linear(3, 2), squared, ALONE, mode="fsdp9")


@pytest.mark.parametrize(("mode", "chosen"), [("auto", "ddp"), ("ddp", "ddp"), ("fsdp", "fsdp")])
def test_the_mode_wraps_several_ranks(mode, chosen, monkeypatch):
    monkeypatch.setitem(MODES, chosen, lambda module, ranks, wrapping: nn.Identity())
    assert isinstance(parallelize(nn.Linear(3, 2), squared, ONE_OF_TWO, mode=mode), nn.Identity)


def test_groups_of_ranks_must_be_equal():
    with pytest.raises(ValueError, match=r"train.fsdp_ranks must divide the number of ranks, 2; got 3"):
        parallelize(nn.Linear(3, 2), squared, ONE_OF_TWO, mode="fsdp", wrapping=Wrapping(fsdp_ranks=3))


def test_a_cpu_has_nothing_to_offload():
    with pytest.raises(ValueError, match=r"train.cpu_offload needs a GPU"):
        parallelize(nn.Linear(3, 2), squared, ONE_OF_TWO, mode="fsdp", wrapping=Wrapping(cpu_offload=True))


def test_a_setting_that_cannot_run_fails_before_the_data_is_prepared(tmp_path):
    task, config = random_run(parallel="fsdp", cpu_offload=True)
    with pytest.raises(ValueError, match=r"train.cpu_offload needs a GPU"):
        fit(task, tmp_path, config)
    assert not any(tmp_path.iterdir())


def test_a_single_gpu_shares_nothing_to_offload():
    gpu = Ranks(0, 1, torch.device("cuda"))  # named only
    with pytest.raises(ValueError, match=r"train.cpu_offload needs several ranks"):
        parallelize(nn.Linear(3, 2), squared, gpu, mode="fsdp", wrapping=Wrapping(cpu_offload=True))


@pytest.mark.parametrize("setting", [{"fsdp_ranks": 2}, {"cpu_offload": True}])
@pytest.mark.parametrize("mode", ["auto", "ddp"])
def test_settings_of_fsdp_need_it(setting, mode):
    with pytest.raises(ValueError, match=rf"train.{next(iter(setting))} needs train.parallel fsdp; got .*{mode}"):
        TrainConfig(parallel=mode, **setting)


def test_the_loss_runs_inside_what_is_wrapped(monkeypatch):
    """A temperature or a head that the loss uses must be used where a wrapper has gathered it."""
    inside = []

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, batch):
            inside.append("in")
            out = self.module(batch)
            inside.append("out")
            return out

    monkeypatch.setitem(MODES, "ddp", lambda module, ranks, wrapping: Wrapper(module))
    module = parallelize(nn.Linear(3, 2), lambda model, batch: inside.append("loss"), ONE_OF_TWO)
    module(torch.zeros(1, 3))
    assert inside == ["in", "loss", "out"]


def test_wrappers_find_the_tensors_of_a_loss():
    """FSDP hooks them to start its backward pass; torch 2.11 looks for them in tuples and dicts alone."""
    total, metric = torch.ones(()), torch.zeros(())
    leaves = tree_leaves(Loss(total, {"metric": metric}))
    assert [id(leaf) for leaf in leaves] == [id(total), id(metric)]
    assert tree_leaves(Loss(total))[0] is total


@dataclass
class Rows(Movable):
    x: torch.Tensor


def _clipped_step(ranks: Ranks, **options) -> dict[str, torch.Tensor]:
    """How far a step of gradient descent at a rate of 1 moves a model that has no `Layer`, with clipped gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = torch.randn(12, 8).chunk(ranks.world_size)[ranks.rank]
    module = parallelize(model, lambda inner, batch: Loss(inner(batch.x).square().mean()), ranks, **options)
    config = Config(optimizer=OptimizerConfig(max_grad_norm=0.1), train=TrainConfig(precision="float32"))
    values = train_step(module, torch.optim.SGD(model.parameters(), lr=1.0), [Rows(rows)], config, ranks)
    moved = {name: _whole(p) - start[name] for name, p in model.named_parameters()}
    return {**moved, "norm": values["gradient_norm"]}


def _other_model(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=3)
    try:
        ranks = Ranks(rank, 3, torch.device("cpu"), dist.group.WORLD)
        wrappings = {"whole": Wrapping(), "one rank a copy": Wrapping(fsdp_ranks=1), "bf16": Wrapping(dtype=BF16)}
        found = {name: _clipped_step(ranks, mode="fsdp", wrapping=wrapping) for name, wrapping in wrappings.items()}
        if rank == 0:
            torch.save(found, folder / "found.pt")
        gc.collect()
    finally:
        dist.destroy_process_group()


def test_a_model_without_layers_trains_under_fsdp(tmp_path):
    """Also one whose parameters have fewer rows than there are ranks, and with gradients that are clipped."""
    run_ranks(_other_model, f"file://{tmp_path}/rendezvous", tmp_path, world_size=3)
    expected = _clipped_step(ALONE)
    assert expected["norm"] > 0.1
    for found in torch.load(tmp_path / "found.pt").values():
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@dataclass
class Heard(Rows):
    audio_clips: torch.Tensor | None = None


def _kinetics_step(ranks: Ranks) -> dict[str, torch.Tensor]:
    """A finetuning step on four clips, of which only the first two have sound."""
    sizes = tiny(vocab_size=50, audio_patch_size=5)
    task = finetuned_task("kinetics600", sizes)
    clips = np.random.default_rng(0).random((4, 1, 2, *sizes.image_size, 3), dtype=np.float32)
    sound = np.random.default_rng(1).random((1, 2, 3, 60, 65), dtype=np.float32)
    examples = [Example(clip, sound if number < 2 else None, number) for number, clip in enumerate(clips)]
    count = 4 // ranks.world_size
    batch = task.collate(examples[ranks.rank * count : (ranks.rank + 1) * count])
    torch.manual_seed(0)
    model = task.build_model()
    loss = lambda inner, batch: task.loss(inner, batch, ranks.group)  # noqa: E731
    module = parallelize(model, loss, ranks, mode="fsdp")
    config = Config(optimizer=OptimizerConfig(learning_rate=1e-3), train=TrainConfig(precision="float32"))
    groups = task.parameter_groups(model, config.optimizer)
    optimizer = make_optimizer(model, groups, config.optimizer, decay_to_start=True)
    values = train_step(module, optimizer, [batch], config, ranks)
    return {"loss": ranks.mean(values["loss"]), "gradient_norm": values["gradient_norm"]}


def _sounds_on_one_rank(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        ranks = Ranks(rank, 2, torch.device("cpu"), dist.group.WORLD, dist.group.WORLD)
        found = _kinetics_step(ranks)
        module = parallelize(nn.Linear(3, 2), lambda model, batch: Loss(model(batch.x).sum()), ranks, mode="fsdp")
        with pytest.raises(ValueError, match=r"train.parallel fsdp needs .* on all 2 ranks.*; got audio_clips on 1 of"):
            module(Heard(torch.zeros(1, 3), torch.zeros(1) if rank else None))
        if rank == 0:
            torch.save(found, folder / "found.pt")
        gc.collect()
    finally:
        dist.destroy_process_group()


def test_ranks_with_silent_clips_run_the_audio_encoder_too(tmp_path):
    """Else the ranks would gather layers of different encoders, and hang. A task that lets them differ is refused."""
    run_ranks(_sounds_on_one_rank, f"file://{tmp_path}/rendezvous", tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), _kinetics_step(ALONE), rtol=1e-4, atol=1e-6)


STEPS = 2
Watch = Callable[[Pretrained], None]


def _trained(ranks: Ranks, watch: Watch | None = None, *, recompute: bool = False, **train) -> dict[str, torch.Tensor]:
    """The losses, norms and final weights of a few steps of pretraining, whole, under some settings of train."""
    task, config = random_run(**train)
    torch.manual_seed(0)
    model = task.build_model()
    compile_layers(model, config.train.compile, ranks.device)
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recompute = recompute
    wrapping = Wrapping.of(config.train, ranks, uses_every_parameter=task.uses_every_parameter)
    function = task.vectors if config.train.grad_cache else lambda inner, batch: task.loss(inner, batch, ranks.group)
    wrapped = parallelize(model, function, ranks, mode=config.train.parallel, wrapping=wrapping)
    optimizer = make_optimizer(model, task.parameter_groups(model, config.optimizer), config.optimizer)
    sampler = BatchSampler(
        task.examples,
        config.train.batch_size // ranks.world_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        accumulate=config.train.accumulate,
    )
    batches = load_batches(task.training_set(Path(), config.train), sampler, task.collate, num_workers=0)
    whole = (lambda parts: task.vectors_loss(parts, ranks.group)) if config.train.grad_cache else None
    reported = []
    for step in range(STEPS):
        mine = [next(batches) for _ in range(config.train.accumulate)]
        values = train_step(wrapped, optimizer, mine, config, ranks, step=step, vectors_loss=whole)
        reported.append(torch.stack([ranks.mean(values["loss"]), values["gradient_norm"].float()]))
    if watch is not None:
        watch(model)
    weights = {name: _whole(p) for name, p in model.named_parameters()}
    return {"reported": torch.stack(reported), **weights}


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()


VARIANTS = {
    "ddp": {},
    "ddp in micro-batches": {"accumulate": 2, "grad_cache": True},
    "fsdp": {"parallel": "fsdp"},
    "fsdp in micro-batches, recomputed": {"parallel": "fsdp", "accumulate": 2, "grad_cache": True, "recompute": True},
    "fsdp in pairs": {"parallel": "fsdp", "fsdp_ranks": 2},
    "ddp in bfloat16": {"precision": "bfloat16"},
    "fsdp in bfloat16": {"parallel": "fsdp", "precision": "bfloat16"},
}


def _on_ranks(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=4)
    try:
        ranks = Ranks(rank, 4, torch.device("cpu"), dist.group.WORLD)
        results = {name: _trained(ranks, **settings) for name, settings in VARIANTS.items()}
        placed: dict[str, str] = {}
        _trained(ranks, lambda model: placed.update(_placements(model)), parallel="fsdp", precision="bfloat16")
        if rank == 0:
            torch.save((results, placed), folder / "results.pt")
        gc.collect()
    finally:
        dist.destroy_process_group()


def _placements(model: Pretrained) -> dict[str, str]:
    return {name: f"{p.placements} {p.to_local().dtype}" for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(_on_ranks, f"file://{folder}/rendezvous", folder, world_size=4)
    return torch.load(folder / "results.pt")


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return _trained(ALONE)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "bfloat16" not in name])
def test_four_ranks_compute_what_one_process_computes(variant, four_ranks, alone):
    ours = four_ranks[0][variant]
    assert ours.keys() == alone.keys()
    torch.testing.assert_close(ours["reported"], alone["reported"], rtol=1e-4, atol=1e-5)
    start = random_start()
    for name, before in start.items():
        moved = (alone[name] - before).norm()
        # Adam turns the rounding of a gradient near zero into a step, so single numbers may differ more.
        assert (ours[name] - alone[name]).norm() <= 5e-3 * moved + 1e-6, name
        assert moved > 0, name


def random_start() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: p.detach() for name, p in random_run()[0].build_model().named_parameters()}


def test_in_bfloat16_fsdp_computes_the_numbers_of_ddp(four_ranks):
    """Matrices are gathered in bfloat16, norms, biases and temperatures in float32: what autocast makes of them."""
    ours, expected = (four_ranks[0][f"{mode} in bfloat16"] for mode in ("fsdp", "ddp"))
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert float((expected["reported"] - four_ranks[0]["ddp"]["reported"]).abs().max()) > 1e-4


def test_every_parameter_is_sharded_and_kept_in_float32(four_ranks):
    placed = four_ranks[1]
    assert len(placed) == len(list(random_run()[0].build_model().parameters()))
    assert set(placed.values()) == {"(Shard(dim=0),) torch.float32"}


def _layer_dtypes(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        ranks = Ranks(rank, 2, torch.device("cpu"), dist.group.WORLD)
        seen: dict[str, torch.dtype] = {}
        _watch_a_step(ranks, seen)
        if rank == 0:
            torch.save(seen, folder / "seen.pt")
        gc.collect()
    finally:
        dist.destroy_process_group()


def _watch_a_step(ranks: Ranks, seen: dict[str, torch.dtype]) -> None:
    task, config = random_run(batch_size=4, parallel="fsdp", precision="bfloat16")
    model = task.build_model()

    def note(layer: Layer, inputs: tuple, output: torch.Tensor) -> None:
        seen.update({name: p.dtype for name, p in layer.named_parameters()})
        seen.update(input=inputs[0].dtype, angles=inputs[3].dtype, output=output.dtype)

    # Before it is wrapped, so that it runs while the layer is gathered.
    next(module for module in model.modules() if isinstance(module, Layer)).register_forward_hook(note)
    wrapping = replace(Wrapping.of(config.train, ranks, uses_every_parameter=True), dtype=BF16)
    module = parallelize(model, lambda m, b: task.loss(m, b, ranks.group), ranks, mode="fsdp", wrapping=wrapping)
    examples = task.training_set(Path(), config.train)
    optimizer = make_optimizer(model, task.parameter_groups(model, config.optimizer), config.optimizer)
    train_step(module, optimizer, [task.collate([examples[0, 0], examples[0, 1]])], config, ranks)


def test_layers_gather_their_matrices_alone_in_bfloat16(tmp_path):
    run_ranks(_layer_dtypes, f"file://{tmp_path}/rendezvous", tmp_path)
    seen = torch.load(tmp_path / "seen.pt")
    assert {name for name, dtype in seen.items() if dtype == BF16} == {
        *(f"{part}.weight" for part in ("attention.qkv", "attention.projection", "mlp.intermediate", "mlp.out")),
        *("input", "output"),
    }
    assert seen["attention_norm.weight"] == seen["attention.qkv.bias"] == seen["angles"] == torch.float32


def _compiled(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        ranks = Ranks(rank, 2, torch.device("cpu"), dist.group.WORLD)
        modes = {"eager": {}, "ddp": {"compile": "layers"}, "fsdp": {"compile": "layers", "parallel": "fsdp"}}
        results = {name: _trained(ranks, precision="bfloat16", **settings) for name, settings in modes.items()}
        if rank == 0:
            torch.save(results, folder / "results.pt")
        gc.collect()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_compiled_layers_work_under_both(tmp_path):
    run_ranks(_compiled, f"file://{tmp_path}/rendezvous", tmp_path)
    results = torch.load(tmp_path / "results.pt")
    for mode in ("ddp", "fsdp"):
        torch.testing.assert_close(results[mode]["reported"], results["eager"]["reported"], rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(results["fsdp"]["reported"], results["ddp"]["reported"], rtol=1e-4, atol=1e-5)
