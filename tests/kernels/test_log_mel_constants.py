"""The cache of constants. The meta device replaces a GPU: it is not the CPU, and every machine has it."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import pytest
import torch

from reserve_kernels import native
from reserve_kernels.log_mel import constants as kept
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.native import _constants, constants
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.helpers.torch_defaults import torch_defaults

SETTINGS = LogMelSettings("reflect", 22050.0, 1536, 588, 64, 20.0, 11025.0, 0.1)
DEVICE = torch.device("meta")
needs_library = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.setattr(kept, "_ON_DEVICES", {})
    # Without a GPU there is nothing to ask.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def makers(settings: LogMelSettings):
    """Constants that the kernel and the reference read on a device; each must outlive its call."""
    like = torch.empty(0, device=DEVICE)
    yield "kernel", lambda: constants(settings, DEVICE).window
    yield "window", lambda: settings.window_for(like)
    yield "filters", lambda: settings.filters(like)


@needs_library
def test_constants_made_under_other_defaults_are_on_the_cpu_all_the_same():
    """Constants of the CPU are cached, and the native code reads their memory."""
    settings = dataclasses.replace(SETTINGS, f_min=21.5)
    with torch_defaults(torch.bfloat16, "meta"):
        made = constants(settings, torch.device("cpu"))
    _constants.cache_clear()
    mel_filterbank.cache_clear()
    for field in dataclasses.fields(made):
        expected = getattr(constants(settings, torch.device("cpu")), field.name)
        assert torch.equal(getattr(made, field.name), expected), field.name


@needs_library
@pytest.mark.parametrize("which", ["kernel", "window", "filters"])
def test_other_parameters_do_not_free_constants_of_a_queued_kernel(which):
    first = weakref.ref(dict(makers(SETTINGS))[which]())
    for bands in range(1, 41):
        change = {"n_mels": bands, "n_fft": 1536 if which == "kernel" else 512 + bands}
        dict(makers(dataclasses.replace(SETTINGS, **change)))[which]()
    gc.collect()
    assert first() is not None
    assert dict(makers(SETTINGS))[which]() is first()


@needs_library
@pytest.mark.parametrize("which", ["kernel", "window", "filters"])
def test_capturing_a_graph_at_the_first_call_is_an_error(which, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="must run once with the same parameters before a CUDA graph captures it"):
        dict(makers(SETTINGS))[which]()


@needs_library
@pytest.mark.parametrize("which", ["kernel", "window", "filters"])
def test_capturing_a_graph_after_a_call_uses_the_cached_constants(which, monkeypatch):
    made = dict(makers(SETTINGS))[which]()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert dict(makers(SETTINGS))[which]() is made


def test_the_dtypes_of_a_device_are_kept_apart():
    for dtype in (torch.float32, torch.float64):
        like = torch.empty(0, device=DEVICE, dtype=dtype)
        assert SETTINGS.window_for(like).dtype == SETTINGS.filters(like).dtype == dtype
