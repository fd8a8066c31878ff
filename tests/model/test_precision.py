"""Which precision a run computes in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from reserve.config import TrainConfig
from reserve.model import precision
from reserve.model.precision import autocast, cpu_has_bf16, training_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")
X86 = "processor\t: 0\nmodel name\t: some bf16 CPU\nflags\t\t: fpu avx2 {}\nbugs\t\t: spectre\n"


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    cpu_has_bf16.cache_clear()
    yield
    cpu_has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16 amx_tile"), True),
        (X86.format("avx512f avx512_vnni"), False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", False),
        (None, False),
    ],
)
def test_auto_takes_bfloat16_where_the_cpu_has_it(tmp_path, monkeypatch, text, has):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert training_dtype(TrainConfig(precision="auto"), CPU) == (torch.bfloat16 if has else torch.float32)
    assert training_dtype(TrainConfig(precision="auto"), GPU) == torch.bfloat16


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_a_named_precision_is_taken_everywhere(monkeypatch, name, device):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: pytest.fail("asked for the CPU"))
    assert training_dtype(TrainConfig(precision=name), device) == getattr(torch, name)


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_products_are_computed_in_it(name, dtype):
    with autocast(TrainConfig(precision=name), CPU):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
