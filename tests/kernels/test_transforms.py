"""What the ops do not support is an error that names the op and the feature, for every argument and back end."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from reserve_kernels import contrastive_loss
from reserve_kernels.attention import availability
from tests.kernels.op_calls import CALLS, ON_CPU, every_argument, every_backend, every_function

FORWARD_MODE = "does not support forward-mode differentiation"
REVERSE_MODE = "does not support torch.func.grad, vjp and jacrev"
VMAP = "does not support torch.func.vmap"


def _dual(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def _jvp(function, x):
    return torch.func.jvp(function, (x,), (torch.ones_like(x),))


def _nested_jvp(function, x):
    """x is transformed at the outer level only."""
    return _jvp(lambda x: _jvp(lambda y: function(x) + y, torch.zeros(()))[0], x)


TRANSFORMS = {
    "jvp": (_jvp, FORWARD_MODE),
    "nested jvp": (_nested_jvp, FORWARD_MODE),
    "jacfwd": (lambda function, x: torch.func.jacfwd(lambda x: function(x).sum())(x), VMAP),
    "linearize": (lambda function, x: torch.func.linearize(function, x), FORWARD_MODE),
    "dual numbers": (_dual, FORWARD_MODE),
    "dual numbers without grad mode": (lambda function, x: torch.no_grad()(_dual)(function, x), FORWARD_MODE),
    "grad": (lambda function, x: torch.func.grad(lambda x: function(x).sum())(x), REVERSE_MODE),
    "vjp": (lambda function, x: torch.func.vjp(function, x), REVERSE_MODE),
    "jacrev": (lambda function, x: torch.func.jacrev(lambda x: function(x).sum())(x), REVERSE_MODE),
    "hessian": (lambda function, x: torch.func.hessian(lambda x: function(x).sum())(x), REVERSE_MODE),
    "vmap": (lambda function, x: torch.func.vmap(function)(torch.stack((x, x))), VMAP),
    "gradients of each sample": (
        lambda function, x: torch.func.vmap(torch.func.grad(lambda x: function(x).sum()))(torch.stack((x, x))),
        REVERSE_MODE,
    ),
}


def _function_of(name, argument, backend="auto"):
    """The op as a function of one argument, and a value of it."""
    call = CALLS[name]
    arguments = call.make()
    return lambda x: call.run(arguments | {argument: x}, backend), arguments[argument]


@every_backend
@pytest.mark.parametrize(("transform", "feature"), TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_every_back_end_refuses(name, backend, transform, feature):
    function, x = _function_of(name, next(iter(CALLS[name].make())), backend)
    with pytest.raises(NotImplementedError) as refusal:
        transform(function, x)
    assert str(refusal.value).startswith(name)
    # jacfwd is jvp under vmap: either is true of it.
    assert feature in str(refusal.value) or FORWARD_MODE in str(refusal.value)


@every_argument
@pytest.mark.parametrize(("transform", "feature"), TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_every_argument_counts(name, argument, transform, feature):
    """Also those without a gradient: a forward derivative of zero would be as wrong."""
    function, x = _function_of(name, argument)
    with pytest.raises(NotImplementedError, match=f"{name} does not support"):
        transform(function, x)


@every_function
@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap", "dual numbers"])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_calls_refuse_too(name, transform, fullgraph):
    function, x = _function_of(name, next(iter(CALLS[name].make())))
    apply, _ = TRANSFORMS[transform]
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=f"{name} does not support"):  # also NotImplementedError and Unsupported
        torch.compile(lambda x: apply(function, x), backend="aot_eager", fullgraph=fullgraph)(x)


@every_function
def test_a_call_that_was_compiled_before_refuses_too(name):
    function, x = _function_of(name, next(iter(CALLS[name].make())))
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x))
    for key, (transform, _) in TRANSFORMS.items():
        if key != "linearize":  # which takes no compiled functions
            with pytest.raises(NotImplementedError, match=f"{name} does not support"):
                transform(compiled, x)
    torch.testing.assert_close(compiled(x), function(x))


def test_a_back_end_made_of_pytorchs_functions_refuses_too(monkeypatch):
    """On a GPU some are; PyTorch would give forward derivatives in some kernels and not in others."""
    function, x = _function_of("rotary_attention", "qkv", "composed")
    backend = availability.AttentionBackend(
        "composed", availability.runs_anywhere, composed=lambda qkv, packing: qkv[:, 2]
    )
    monkeypatch.setattr(availability.BACKENDS, "_backends", (backend,))
    assert torch.equal(function(x), x[:, 2])
    for transform, _ in TRANSFORMS.values():
        with pytest.raises(NotImplementedError, match="rotary_attention does not support"):
            transform(function, x)


@every_backend
def test_double_backward_is_refused(name, backend):
    function, x = _function_of(name, next(iter(CALLS[name].make())), backend)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{name} has no double backward"):
        torch.autograd.grad(grad.sum(), x)


@every_backend
def test_what_is_not_transformed_runs_inside_a_transformation(name, backend):
    function, x = _function_of(name, next(iter(CALLS[name].make())), backend)
    expected = function(x)
    for inner in (
        lambda y: function(x),
        lambda y: function(x + y.detach()),
        lambda y: torch.no_grad()(function)(x + y),
    ):
        # The derivative of y * out with respect to y is out.
        inside = torch.func.grad(lambda y, inner=inner: (y * inner(y)).sum())(torch.zeros(()))
        torch.testing.assert_close(inside, expected.sum())
    assert torch.equal(torch.func.functionalize(function)(x), expected)


@every_backend
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_backward_passes_of_several_gradients_at_once_are_right(name, backend):
    """They run under vmap: `is_grads_batched`, and `vectorize` of torch.autograd.functional.jacobian."""
    function, x = _function_of(name, next(iter(CALLS[name].make())), backend)
    x.requires_grad_()
    out = function(x)
    grads = torch.randn(3, *out.shape)
    (together,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    apart = [torch.autograd.grad(out, x, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(together, torch.stack(apart))


@every_argument
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_call_is_not_a_constant(name, argument):
    function, x = _function_of(name, argument)
    traced = torch.jit.trace(function, (x,), check_trace=False)
    torch.testing.assert_close(traced(0.5 * x), function(0.5 * x))


@pytest.mark.parametrize("backend", [backend for name, backend in ON_CPU if name == "contrastive_loss"])
@pytest.mark.parametrize("output", ["loss", "x_to_y", "y_to_x"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_several_gradients_of_one_output_of_contrastive_loss_are_right(backend, output):
    leaves = {k: v.requires_grad_() for k, v in CALLS["contrastive_loss"].make().items()}
    out = getattr(contrastive_loss(**leaves, backend=backend), output)
    grads = torch.randn(3, *out.shape)

    def gradients(grad, several):
        # A direction does not depend on the other direction's candidates.
        how = {"retain_graph": True, "allow_unused": True, "materialize_grads": True, "is_grads_batched": several}
        return torch.autograd.grad(out, leaves.values(), grad, **how)

    apart = zip(*(gradients(grad, False) for grad in grads), strict=True)
    for together, each in zip(gradients(grads, True), apart, strict=True):
        torch.testing.assert_close(together.expand(3, *each[0].shape), torch.stack(each))
