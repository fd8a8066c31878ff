"""The launches of the Triton kernels, on a machine without a GPU: kernels are compiled but not run."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from reserve_kernels.attention import triton_blocks, triton_long, triton_short
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.triton import attention_triton, attention_triton_backward
from reserve_kernels.attention.triton_placing import gradient_of_placed, placed


class H200(DriverBase):
    """The parts of a driver that compilation needs."""

    def __init__(self) -> None:
        pass

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def map_python_to_cpp_type(self, name: str) -> str:
        return name

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self):
        raise NotImplementedError

    def get_empty_cache_for_benchmark(self):
        raise NotImplementedError

    def clear_cache(self, cache) -> None:
        raise NotImplementedError


class Launched(NamedTuple):
    kernel: str
    arguments: tuple[object, ...]
    variant: int


@pytest.fixture
def launched(monkeypatch):
    """Records the launches in order."""
    found: list[Launched] = []
    monkeypatch.setattr(triton.runtime.driver, "_active", H200())

    def record(name, run):
        def compiled(*arguments, grid, warmup, **options):
            variant = run(*arguments, grid=grid, warmup=True, **options)
            found.append(Launched(name, arguments, id(variant)))

        return compiled

    for module in (triton_blocks, triton_long, triton_short):
        for name, kernel in vars(module).items():
            if name.endswith("_kernel"):
                monkeypatch.setattr(kernel, "run", record(name, kernel.run))
    return found


def launch(lengths, heads):
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, heads, 64).bfloat16()
    cu = torch.tensor([0, *lengths]).cumsum(0).int()
    packing = Packing(cu, max(lengths), torch.randn(tokens, 16), None, "reserve", 0.125)
    out, lse = attention_triton(qkv, packing)
    attention_triton_backward(torch.randn_like(out), qkv, out, lse, packing)
    return qkv


SHORT = ["rotary_table_kernel", "short_forward_kernel", "rotary_table_kernel", "short_backward_kernel"]
PLACE = ["rotary_table_kernel", "place_kernel"]
LONG = [*PLACE, "forward_kernel", *PLACE, "dq_kernel", "dkv_kernel"]


@pytest.mark.parametrize(("lengths", "expected"), [([31, 17], SHORT), ([303, 417], LONG)], ids=["short", "long"])
def test_one_variant_of_each_kernel_serves_all_batches(launched, lengths, expected):
    for heads in (1, 12, 16):
        launch(lengths, heads)
        launch([*lengths, 16], heads)
    assert [x.kernel for x in launched] == expected * 6
    assert len({x.variant for x in launched}) == len(set(expected))


def test_placing_is_one_pass_in_each_direction(launched):
    for heads in (1, 12):
        qkv, angles = torch.randn(48, 3, heads, 64).bfloat16(), torch.randn(48, 16)
        q, k = placed(qkv, angles, "reserve").unbind(1)
        gradient_of_placed(q, k, qkv[:, 2], angles, "reserve")
    assert [x.kernel for x in launched] == [*PLACE, "rotary_table_kernel", "unplace_kernel"] * 2
    assert len({x.variant for x in launched}) == 3


def test_qkv_is_not_copied(launched):
    qkv = launch([31, 17], 2)
    read = next(x for x in launched if x.kernel == "short_forward_kernel")
    assert read.arguments[0] is qkv
