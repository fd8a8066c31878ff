from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist

from reserve_kernels.bench import open_clip_original
from reserve_kernels.compat import open_clip as compat
from tests.helpers.ranks import run_ranks
from tests.kernels.log_mel_originals import installed


def open_clip_loss():
    return installed(open_clip_original.open_clip_loss)


CLIP_OPTIONS = [
    {"local_loss": local, "gather_with_grad": gather} for local, gather in itertools.product((False, True), repeat=2)
]


def features(pairs: int, dim: int = 24, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Image and text features as a model's heads give them, normalised."""
    generator = torch.Generator().manual_seed(pairs)
    vectors = (torch.randn(pairs, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return [torch.nn.functional.normalize(v, dim=-1).to(dtype).requires_grad_() for v in vectors]


def scalars(kind: str) -> list[torch.Tensor]:
    """The scale of the logits and, for SigLIP, their bias."""
    values = [14.0] if kind == "ClipLoss" else [10.0, -10.0]
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


def loss_and_gradients(module: torch.nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    loss = module(*inputs)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
@pytest.mark.parametrize("pairs", [1, 2, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_and_its_gradients_are_open_clip_s(name, pairs, dtype):
    inputs = [*features(pairs, dtype=dtype), *(s.detach().to(dtype).requires_grad_() for s in scalars(name))]
    ours = loss_and_gradients(getattr(compat, name)(), inputs)
    theirs = loss_and_gradients(getattr(open_clip_loss(), name)(), inputs)
    close = 1e-5 if dtype == torch.float32 else 1e-9
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.to(b.dtype), b, atol=close, rtol=close)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_vectors_that_are_not_normalised_are_taken_as_they_are(name):
    inputs = [(3 * v.detach()).requires_grad_() for v in features(5)] + scalars(name)
    ours, theirs = (loss_and_gradients(getattr(m, name)(), inputs) for m in (compat, open_clip_loss()))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_a_dictionary_is_returned_on_request(name):
    inputs = [*features(5), *scalars(name)]
    module = getattr(compat, name)()
    out = module(*inputs, output_dict=True)
    assert list(out) == ["contrastive_loss"]
    assert torch.equal(out["contrastive_loss"], module(*inputs))


def test_a_bias_of_clip_has_a_gradient_of_zero():
    bias = torch.tensor(3.0, requires_grad=True)
    compat.ClipLoss()(*features(5), 14.0, logit_bias=bias).backward()
    assert bias.grad == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: compat.ClipLoss(use_horovod=True), NotImplementedError, "use_horovod must be False"),
        (lambda: compat.SigLipLoss(dist_impl="ring"), ValueError, "dist_impl must be 'bidir', .*; got 'ring'"),
    ],
)
def test_what_is_not_supported_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def check_rank(rank: int, world_size: int, address: str) -> None:
    """Both on this rank, with DistributedDataParallel's average of the scalars' gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    options = {"rank": rank, "world_size": world_size}
    cases = [("ClipLoss", chosen) for chosen in CLIP_OPTIONS] + [("SigLipLoss", {"dist_impl": "shift"})]
    try:
        for name, chosen in cases:
            inputs = [v.detach().chunk(world_size)[rank].clone().requires_grad_() for v in features(6 * world_size)]
            inputs += scalars(name)
            results = []
            for module in (compat, open_clip_loss()):
                loss, *grads = loss_and_gradients(getattr(module, name)(**options, **chosen), inputs)
                for grad in grads[2:]:
                    dist.all_reduce(grad)
                results.append([loss, *grads])
            torch.testing.assert_close(results[0], results[1], msg=lambda text, at=(name, chosen): f"{at}: {text}")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_ranks_agree_with_open_clip(world_size, tmp_path):
    open_clip_loss()
    run_ranks(check_rank, world_size, f"file://{tmp_path}/rendezvous", world_size=world_size)
