"""What holds for every function of the table: shapes without values, and independence of torch's defaults."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.helpers.torch_defaults import OTHER_DTYPES, torch_defaults
from tests.kernels.op_calls import CALLS, FUNCTIONS, every_backend


def test_every_function_has_a_call():
    assert CALLS.keys() == {op.name for op in FUNCTIONS}


def _results(name, arguments, backend):
    """The result and the gradients of all arguments that have one."""
    call = CALLS[name]
    leaves = [value.requires_grad_() for key, value in arguments.items() if key not in call.no_gradient]
    out = call.run(arguments, backend)
    return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]


def _shapes(tensors):
    return [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]


@every_backend
def test_shapes_on_the_meta_device(name, backend):
    torch.manual_seed(0)
    arguments = CALLS[name].make()
    expected = _results(name, arguments, backend)
    named = "reference" if backend == "native" else backend  # native back ends say that they need a CPU
    on_meta = _results(name, {key: value.detach().to("meta") for key, value in arguments.items()}, named)
    assert all(tensor.is_meta for tensor in on_meta)
    assert _shapes(on_meta) == _shapes(expected)


@every_backend
def test_shapes_under_fake_tensor_mode(name, backend):
    expected = _results(name, CALLS[name].make(), backend)
    with FakeTensorMode():
        assert _shapes(_results(name, CALLS[name].make(), backend)) == _shapes(expected)


@every_backend
@pytest.mark.parametrize("device", [None, "meta"])
@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
def test_torchs_defaults_do_not_matter(name, backend, dtype, device):
    """In either order: a constant that is cached under one default must not spoil calls under another."""
    torch.manual_seed(0)
    arguments = CALLS[name].make()
    _forget_constants()
    with torch_defaults(dtype, device):
        under_others = _results(name, _copies(arguments), backend)
    afterwards = _results(name, _copies(arguments), backend)
    _forget_constants()
    expected = _results(name, _copies(arguments), backend)
    for results in (under_others, afterwards):
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def _copies(arguments):
    return {key: value.detach().clone() for key, value in arguments.items()}


def _forget_constants():
    from reserve_kernels.log_mel import filters, native

    native._constants.cache_clear()
    filters.mel_filterbank.cache_clear()
