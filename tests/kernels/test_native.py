from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import pytest
import torch

from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.native import constants, problem_of
from reserve_kernels.log_mel.settings import LogMelSettings


@pytest.fixture
def fresh_loader(monkeypatch, tmp_path):
    """The loader before its first use, looking for the library in an empty folder."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    native._load.cache_clear()
    yield tmp_path
    native._load.cache_clear()


def test_importing_the_ops_does_not_load_the_library():
    code = "import reserve_kernels.native as n; assert n._load.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_library_the_reference_runs_and_says_why(fresh_loader):
    reason = native.cpu_unavailable()
    assert reason is not None
    assert "not built" in reason
    assert native.cuda_unavailable() == reason
    assert log_mel_spectrogram(torch.randn(3000)).isfinite().all()
    with pytest.raises(RuntimeError, match=r"backend 'native' cannot run on cpu .* not built"):
        log_mel_spectrogram(torch.randn(3000), backend="native")


def test_a_file_that_is_no_library_is_a_reason(fresh_loader):
    (fresh_loader / native.LIBRARY).write_bytes(b"garbage")
    assert "cannot be loaded" in str(native.cpu_unavailable())


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(("body", "found"), [("int reserve_abi_version(void) { return 99; }", "99"), ("", "None")])
def test_a_library_of_another_version_is_a_reason(fresh_loader, body, found):
    source = fresh_loader / "other.c"
    source.write_text(body)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", fresh_loader / native.LIBRARY, source], check=True)
    assert f"interface version {found}" in str(native.cpu_unavailable())


def test_the_structures_have_the_layout_of_c():
    # Pointers and int64 are 8 bytes, the rest 4.
    assert ctypes.sizeof(native.Attention) == 22 * 8 + 6 * 4  # the last 4 are padding
    assert ctypes.sizeof(native.LogMel) == 8 * 8 + 10 * 4 + 4 * 8 + 10 * 4 + 5 * 8  # 4 before `out` are padding


@pytest.mark.skipif(native.cuda_unavailable() is not None, reason=str(native.cuda_unavailable()))
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_launch_without_a_device_reports_the_cuda_error():
    s, x = LogMelSettings("reflect", 22050.0, 1536, 588, 64, 20.0, 11025.0, 0.1), torch.randn(3000)
    problem = problem_of(x, s, None, torch.empty(s.out_shape(x.shape)), None, constants(s, x.device))
    with pytest.raises(RuntimeError, match=r"log_mel_cuda: CUDA error: cudaError(NoDevice|InsufficientDriver): .{20,}"):
        native.library().log_mel_cuda(problem, 0)
