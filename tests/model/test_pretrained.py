"""Pretrained folders: a saved model loads unchanged, and errors name what is damaged."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from reserve.config import ModelConfig
from reserve.errors import CheckpointError
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.pretrained import pretrained_step
from tests.helpers.tiny import tiny
from tests.helpers.torch_defaults import OTHER_DTYPES, torch_defaults

CONFIG = tiny(rotary="standard")


def test_a_saved_model_loads_unchanged(model: MerlotReserve, folder: Path) -> None:
    loaded = MerlotReserve.from_pretrained(folder)
    assert loaded.config == CONFIG
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert pretrained_step(folder) == 100


@pytest.mark.parametrize("device", [None, "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, *OTHER_DTYPES], ids=str)
def test_torchs_defaults_do_not_change_what_is_loaded(
    dtype: torch.dtype, device: str | None, model: MerlotReserve, folder: Path
) -> None:
    with torch_defaults(dtype, device):
        loaded = [kind.from_pretrained(folder) for kind in (MerlotReserve, WithTable)]
        assert torch.get_default_dtype() == dtype
    for other in loaded:
        assert {(t.dtype, t.device.type) for t in other.state_dict().values()} == {(torch.float32, "cpu")}
        assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    assert torch.equal(loaded[1].table, torch.arange(4.0))


class WithTable(MerlotReserve):
    """Has a head of its own and a buffer that it computes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.classifier = torch.nn.Linear(config.hidden_size, 2)
        self.register_buffer("table", torch.arange(4.0), persistent=False)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_both_files_get_the_same_permissions(mask: int, model: MerlotReserve, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        model.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("config.json", "model.safetensors")}
    assert modes == dict.fromkeys(modes, 0o666 & ~mask)


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    before = torch.get_rng_state()
    MerlotReserve.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_is_kept_in_the_file_and_widened(model: MerlotReserve, tmp_path: Path) -> None:
    half = copy.deepcopy(model).bfloat16()
    half.save_pretrained(tmp_path)
    assert safetensors.torch.load_file(tmp_path / "model.safetensors")["head.weight"].dtype == torch.bfloat16
    loaded = MerlotReserve.from_pretrained(tmp_path)
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, half.head.weight.float())


def test_hub_id_is_found_in_the_cache(model: MerlotReserve, tmp_path: Path) -> None:
    repository, commit = tmp_path / "models--someone--reserve-tiny", "0" * 40
    model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = MerlotReserve.from_pretrained("someone/reserve-tiny", cache_dir=tmp_path, local_files_only=True)
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_hub_id_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="someone/else is not a folder and could not be fetched from the hub"):
        MerlotReserve.from_pretrained("someone/else", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize("source", ["absent", "./a/b", "a/b/c", Path("a/b")])
def test_a_source_that_is_neither_folder_nor_hub_id_is_named(source: str | Path) -> None:
    with pytest.raises(CheckpointError, match="is neither a folder nor an id of the Hugging Face hub"):
        MerlotReserve.from_pretrained(source)


def pipe_for_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_config(hidden_size="64"), "config.hidden_size must be int; got str '64'"),
        (change_config(hidden_size=True), "config.hidden_size must be int; got bool True"),
        (change_config(hidden_size=None), "config.hidden_size must be int; got nothing"),
        (change_config(hidden_size=-64), "model.hidden_size must be positive; got -64"),
        (change_config(hidden_size=65), "hidden_size must be a multiple of 64"),
        (change_config(hidden_size=1 << 40), "config.hidden_size must be at most"),
        (change_config(joint_num_layers=10**9), "config.joint_num_layers must be at most"),
        (change_config(output_grid=[2]), "config.output_grid must be a list of 2"),
        (change_config(output_grid=[2, 1 << 40]), "config.output_grid must be at most"),
        (change_config(rotary="helical"), "config.rotary must be one of 'reserve', 'standard'; got 'helical'"),
        (change_config(init_scale=float("nan")), "config.init_scale must be float; got float nan"),
        (change_config(step="many"), "step must be a whole number from 0 to 2.31 - 1; got 'many'"),
        (change_config(colour="red"), "config.colour is not known. Allowed are audio_num_layers"),
        (change_config(model_type="bert"), '"model_type": "merlot_reserve"'),
        (change_config(joint_num_layers=2), r"missing: joint_transformer.layers.1"),
        (change_config(vocab_size=21), r"token_embedding.weight is \(20, 64\), not \(21, 64\)"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be opened: No such file"),
        (pipe_for_config, "config.json: not a regular file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must be a map"),
        (lambda folder: (folder / "config.json").write_text("[" * 100000), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"hidden_size": 1' + "0" * 9999), "is not JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_bytes(bytes(2**20 + 1)), "has more than 1048576 bytes"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be opened: No such file"),
    ],
)
def test_damaged_folder_is_named(change: Callable[[Path], None], message: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        MerlotReserve.from_pretrained(folder)


@pytest.mark.parametrize("length", [0, 4, 8, 100, 10000, -1])
def test_truncated_weights_are_refused(length: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"model.safetensors(: empty file| is not a safetensors file)"):
        MerlotReserve.from_pretrained(folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(64, dtype=torch.int32), "head.bias must hold floating-point numbers; got I32"),
        (torch.zeros(63), r"head.bias is \(63,\), not \(64,\)"),
        (torch.full((64,), torch.nan), "head.bias holds numbers that are not finite"),
        (torch.full((64,), 1e300, dtype=torch.float64), "head.bias holds numbers that are not finite"),
        (None, "1 missing: head.bias"),
    ],
)
def test_wrong_weight_is_named(value: torch.Tensor | None, message: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["head.bias"]
    safetensors.torch.save_file(weights | ({} if value is None else {"head.bias": value}), path)
    with pytest.raises(CheckpointError, match=message):
        MerlotReserve.from_pretrained(folder)


def test_saving_another_model_replaces_both_files(folder: Path) -> None:
    other = MerlotReserve(replace(CONFIG, rotary="reserve"))
    other.save_pretrained(folder)
    assert MerlotReserve.from_pretrained(folder).config.rotary == "reserve"
    assert pretrained_step(folder) == 0
