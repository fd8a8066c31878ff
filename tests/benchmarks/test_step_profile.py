"""Kernels by kind, and where the host waits."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import step_profile
from benchmarks.step_profile import host_wait_places, kernel_table, kind_of


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_bias_TNT", "GEMM"),
        ("forward_kernel", "attention"),
        ("place_kernel", "attention"),
        ("reserve_kernels::bias_quick_gelu_backward", "GELU"),
        ("short_backward_kernel", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_6", "attention"),
        ("void fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
        ("adamw_kernel(AdamwLaunch)", "optimiser"),
        ("weights_kernel", "loss"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "norm"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::sigmoid_kernel_cuda>", "elementwise"),
        ("triton_poi_fused_add_mul_native_layer_norm_0", "compiled"),
        ("something_else", "other"),
    ],
)
def test_kernels_have_a_kind(kernel, kind):
    assert kind_of(kernel) == kind


def test_a_table_has_the_operators_of_a_call_and_the_sum_of_each_kind():
    x = torch.randn(512, 512)
    table, kinds = kernel_table(lambda: (x @ x).sigmoid(), "cpu")
    assert kinds["GEMM"] > 0
    assert kinds["elementwise"] > 0
    assert "aten::mm" in table
    assert "aten::sigmoid" in table


class Profiled:
    """Takes the place of the profiler, with operators that took as many microseconds."""

    def __init__(self, **_: object) -> None:
        pass

    def __enter__(self) -> Profiled:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self) -> list[SimpleNamespace]:
        common = {"device_type": DeviceType.CPU, "is_user_annotation": False}
        operators = [("aten::mul", 300.0), ("aten::mm", 200.0), ("aten::mm", 400.0), ("aten::add", 100.0)]
        return [SimpleNamespace(name=name, self_cpu_time_total=us, **common) for name, us in operators]


def test_a_table_has_the_longest_kernels(monkeypatch):
    monkeypatch.setattr(step_profile, "profile", Profiled)
    table, kinds = kernel_table(lambda: None, "cpu", rows=1)
    assert kinds == pytest.approx({"GEMM": 0.6, "elementwise": 0.4})
    assert re.search(r"0\.600  60\.0%      2     300\.0  GEMM +aten::mm\n$", table)
    assert "aten::mul" not in table


def test_waits_name_the_line_that_waits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def waiting() -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    (place,) = host_wait_places(lambda: [waiting() for _ in range(2)])
    assert re.match(r"2x .*test_step_profile.py:\d+ < tests/benchmarks/test_step_profile.py:\d+ waiting < ", place)
    assert modes == ["warn", "default"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pytorch_reports_waits():
    x = torch.ones(1, device="cuda")
    (place,) = host_wait_places(lambda: x.item())
    assert "test_step_profile.py" in place
