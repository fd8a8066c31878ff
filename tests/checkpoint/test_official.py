"""Official checkpoints: every parameter is loaded once, and every error names its parameter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reserve
from reserve.checkpoint.flax_msgpack import encode_tree
from reserve.checkpoint.official import load_official, official_tree, read_official, save_official
from reserve.errors import CheckpointError
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny
from tests.helpers.torch_defaults import OTHER_DTYPES, torch_defaults

CONFIG = tiny(output_grid=(2, 2))


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(CONFIG)


@pytest.fixture
def params(model: MerlotReserve) -> dict[str, Any]:
    return copy.deepcopy(official_tree(model, "float32"))


def assert_same_weights(ours: MerlotReserve, theirs: MerlotReserve) -> None:
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_top_package_has_both() -> None:
    assert reserve.load_official is load_official
    assert reserve.save_official is save_official


@pytest.mark.parametrize("device", [None, "meta"])
@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
def test_torchs_defaults_change_nothing(
    dtype: torch.dtype, device: str | None, model: MerlotReserve, tmp_path: Path
) -> None:
    save_official(model, tmp_path / "before")
    expected = load_official(tmp_path / "before", CONFIG)
    with torch_defaults(dtype, device):
        loaded = load_official(tmp_path / "before", CONFIG)
        save_official(loaded, tmp_path / "after")
    assert_same_weights(loaded, expected)
    assert loaded.head.weight.dtype == torch.float32
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


@pytest.mark.parametrize("form", ["path", "text path", "bytes", "bytearray", "memoryview", "dict", "dict with params"])
def test_every_form_of_source_loads(form: str, model: MerlotReserve, params: dict[str, Any], tmp_path: Path) -> None:
    content = encode_tree({"opt_state": None, "params": params, "step": np.int32(5)})
    path = tmp_path / "base"
    path.write_bytes(content)
    sources: dict[str, Any] = {
        "path": path,
        "text path": str(path),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "dict": params,
        "dict with params": {"params": params, "step": 5},
    }
    assert_same_weights(load_official(sources[form], CONFIG), model)


class OtherArray:
    """An array that numpy can convert, like JAX's."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(np.asfortranarray, id="column-major"),
        pytest.param(lambda a: np.repeat(a, 2, axis=0)[::2], id="strided"),
        pytest.param(lambda a: a.astype(">f4"), id="byte-swapped"),
        pytest.param(lambda a: a.astype(np.float64), id="float64"),
        pytest.param(torch.from_numpy, id="torch"),
        pytest.param(lambda a: torch.from_numpy(a).requires_grad_(), id="torch with gradient"),
        pytest.param(lambda a: a.tolist(), id="lists"),
        pytest.param(OtherArray, id="another library's"),
    ],
)
def test_every_form_of_array_loads(change: Callable, model: MerlotReserve, params: dict[str, Any]) -> None:
    params["head"]["kernel"] = change(params["head"]["kernel"])
    assert_same_weights(load_official(params, CONFIG), model)


def test_torch_bfloat16_loads(params: dict[str, Any]) -> None:
    rounded = torch.from_numpy(params["head"]["bias"]).add(0.3).bfloat16()
    params["head"]["bias"] = rounded
    assert torch.equal(load_official(params, CONFIG).head.bias, rounded.float())


def test_bfloat16_array_in_a_file_loads(params: dict[str, Any], tmp_path: Path) -> None:
    import msgpack

    bits = torch.linspace(-1, 1, 64).bfloat16()
    params["head"]["bias"] = 0
    content = encode_tree({"params": params})
    array = msgpack.packb(((64,), "bfloat16", bits.view(torch.int16).numpy().tobytes()))
    name = msgpack.packb("bias")
    at = content.index(msgpack.packb("head") + b"\x82" + name) + len(msgpack.packb("head")) + 1 + len(name)
    content = content[:at] + msgpack.packb(msgpack.ExtType(1, array)) + content[at + 1 :]
    assert torch.equal(load_official(content, CONFIG).head.bias, bits.float())


def test_chunked_array_loads(model: MerlotReserve, params: dict[str, Any]) -> None:
    flat = params["head"]["kernel"].reshape(-1)
    params["head"]["kernel"] = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 64, "1": 64},
        "chunks": {"0": flat[:4000], "1": flat[4000:]},
    }
    assert_same_weights(load_official(encode_tree({"params": params}), CONFIG), model)


def set_at(tree: dict[str, Any], path: str, value: Any) -> None:
    *folders, leaf = path.split("/")
    for folder in folders:
        tree = tree[folder]
    tree[leaf] = value


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"leaf": np.zeros(1, np.float32)}
    for _ in range(depth):
        tree = {"deeper": tree}
    return tree


def endless() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["again"] = tree
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("head/kernel", np.zeros((64, 63), np.float32), r"1 misshapen: head/kernel is \(64, 63\), not \(64, 64\)"),
        ("head/scale", np.zeros(64, np.float32), "1 unknown: head/scale"),
        ("head", {}, "2 missing: head/bias, head/kernel"),
        ("head/bias", {"x": np.zeros(64, np.float32)}, "1 missing: head/bias; 1 unknown: head/bias/x"),
        ("head/bias", np.zeros(64, np.int32), "head/bias must hold floating-point numbers; got int32"),
        ("head/bias", np.zeros(64, bool), "head/bias must hold floating-point numbers; got bool"),
        ("head/bias", "weights", "head/bias must hold numbers; got str"),
        ("head/bias", None, "head/bias must hold numbers; got NoneType"),
        ("head/bias", [[1.0], [1.0, 2.0]], "head/bias must be an array; got list"),
        ("head/bias", np.zeros(64, complex), "head/bias must hold numbers"),
        ("head/bias", torch.zeros(64, device="meta"), "head/bias must be an array; got Tensor: .*no data"),
        ("head/bias", torch.zeros(64).to_sparse(), "head/bias must be an array; got Tensor: .*Sparse"),
        ("head/bias", torch.zeros(64).to(torch.float8_e4m3fn), "head/bias must be an array; got Tensor: .*Float8"),
        ("head/bias", np.full(64, np.nan, np.float32), "head/bias holds numbers that are not finite"),
        ("head/bias", np.full(64, 1e300), "head/bias holds numbers that are not finite"),
        ("contrastive_scales", np.array([1, np.inf, 1], np.float32), "contrastive_scales holds numbers that are not"),
        ("contrastive_scales", np.float32(np.nan), "contrastive_scales is \\(\\), not \\(3,\\)"),
        ("head/kernel", nested(100), "nested more than 32 deep"),
        ("head/kernel", endless(), "nested more than 32 deep"),
        (b"head", np.zeros(1, np.float32), "names must be text; got bytes"),
    ],
)
def test_wrong_parameter_is_named(path, value, message: str, params: dict[str, Any]) -> None:
    if isinstance(path, str):
        set_at(params, path, value)
    else:
        params[path] = value
    with pytest.raises(CheckpointError, match=message):
        load_official(params, CONFIG)


def test_two_arrays_of_one_name_are_refused(params: dict[str, Any]) -> None:
    params["head/bias"] = params["head"]["bias"]
    with pytest.raises(CheckpointError, match="two arrays are called head/bias"):
        load_official(params, CONFIG)


def test_many_missing_are_counted_and_not_all_listed(params: dict[str, Any]) -> None:
    del params["joint_transformer"]
    with pytest.raises(CheckpointError, match=r"14 missing: joint_transformer.*, …$") as error:
        load_official(params, CONFIG)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("value", [np.zeros(1, np.float32), np.zeros(1, np.int32), "weights", [[1.0], [1.0, 2.0]]])
def test_message_stays_short_for_long_names(value: Any, params: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as error:
        load_official(params | {"x" * 10**6: value}, CONFIG)
    assert len(str(error.value)) < 1000


def test_another_size_of_model_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"missing: .*joint_transformer/layer_01"):
        load_official(params, replace(CONFIG, joint_num_layers=2))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"params": 5}, "params must be a map of names; got int"),
        ({"params": None}, "params must be a map of names; got NoneType"),
        ({}, "missing"),
        ({"params": {}, "step": "many"}, "step must be a whole number"),
        ({"params": {}, "step": float("nan")}, "step must be a whole number"),
        ({"params": {}, "step": -1}, "step must be a whole number"),
    ],
)
def test_wrong_tree_is_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_official(tree, CONFIG)


def test_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: cannot be opened: No such file"):
        load_official(tmp_path / "absent", CONFIG)
    with pytest.raises(CheckpointError, match="a folder, not a file"):
        load_official(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_official("/dev/zero", CONFIG)
    with pytest.raises(CheckpointError, match=r"a*: cannot be opened: File name too long"):
        load_official("a" * 5000, CONFIG)
    (tmp_path / "broken").write_bytes(b"\x81")
    with pytest.raises(CheckpointError, match=r"broken: not a flax msgpack checkpoint"):
        load_official(tmp_path / "broken", CONFIG)


def test_file_beyond_the_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        raise MemoryError

    (tmp_path / "large").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(CheckpointError, match=r"cannot read .*large: it does not fit in memory"):
        load_official(tmp_path / "large", CONFIG)


def test_saved_file_loads_and_is_saved_again_to_the_byte(model: MerlotReserve, tmp_path: Path) -> None:
    save_official(model, tmp_path / "a", step=750000)
    assert read_official(tmp_path / "a").step == 750000
    save_official(load_official(tmp_path / "a", CONFIG), tmp_path / "b", step=750000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float32_keeps_every_bit(model: MerlotReserve, tmp_path: Path) -> None:
    save_official(model, tmp_path / "a", dtype="float32")
    assert_same_weights(load_official(tmp_path / "a", CONFIG), model)


def test_weights_beyond_float16_are_not_saved_and_the_old_file_stays(model: MerlotReserve, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    large = copy.deepcopy(model)
    with torch.no_grad():
        large.head.bias[3] = 1e5
    with pytest.raises(ValueError, match="head/bias has numbers that are not finite in float16"):
        save_official(large, path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_unknown_dtype_is_refused(model: MerlotReserve, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be 'float16' or 'float32'; got 'int8'"):
        save_official(model, tmp_path / "a", dtype="int8")


def test_a_model_with_replaced_layers_is_refused(model: MerlotReserve) -> None:
    other = copy.deepcopy(model)
    other.head = torch.nn.Sequential(other.head)
    with pytest.raises(ValueError, match=r"lacks 2 weights of the official format: head.bias, head.weight. Merge"):
        official_tree(other)
