"""The adapters to other libraries' attention, with stand-ins that have the libraries' signatures and compute by the
reference: the libraries themselves need a GPU.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
import torch.nn.attention.varlen

from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.peers import attention_xformers
from reserve_kernels.attention.reference import attention_reference, cross_attention_reference
from reserve_kernels.attention.sdpa_padded import attention_sdpa, cross_attention_sdpa
from tests.kernels.attention_cases import CROSS_LENGTHS, cross_problem, with_gradients
from tests.kernels.contrastive_cases import Ops

SCALE = 0.3
FLASH = ["flash_attn", "flash_attn_3", "flash_attn_4"]
PACKED = [*FLASH, "varlen", "xformers"]


class StandIns:
    """Modules in place of the libraries; `seen` has the other arguments of the last call beside q, k, v."""

    def __init__(self) -> None:
        self.seen: dict[str, object] = {}

    def attend(self, q, k, v, cu_seqlens, scale):
        return attention_reference(
            torch.stack((q, k, v), 1), Packing(cu_seqlens, len(q), None, None, "reserve", scale)
        )[0]

    def flash_attn(self) -> ModuleType:
        """flash-attn 2.8."""

        def flash_attn_varlen_func(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None,
            causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
            return_attn_probs=False, block_table=None,
        ):  # fmt: skip
            assert not any((dropout_p, causal, softcap, alibi_slopes, return_attn_probs, block_table))
            assert window_size == (-1, -1)
            return self.flash(
                q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, deterministic
            )

        module = ModuleType("flash_attn")
        module.flash_attn_varlen_func = flash_attn_varlen_func
        return module

    def flash_attn_3(self) -> ModuleType:
        """FlashAttention-3, the folder `hopper` of its repository."""

        def flash_attn_varlen_func(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None, seqused_k=None,
            softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
            window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
            sm_margin=0, return_attn_probs=False,
        ):  # fmt: skip
            assert not any((seqused_q, seqused_k, causal, qv, q_descale, k_descale, v_descale, attention_chunk))
            assert not any((softcap, pack_gqa, sm_margin, return_attn_probs))
            assert (window_size, num_splits) == ((-1, -1), 1)
            return self.flash(
                q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, deterministic
            )

        module = ModuleType("flash_attn_interface")
        module.flash_attn_varlen_func = flash_attn_varlen_func
        return module

    def flash_attn_4(self) -> ModuleType:
        """flash-attn-4 4.0.0b36; it returns statistics too, whether asked for or not."""

        def flash_attn_varlen_func(
            q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None,
            min_seqlen_k=None, seqused_q=None, seqused_k=None, gather_kv_indices=None, page_table=None,
            softmax_scale=None, causal=False, window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1,
            pack_gqa=None, deterministic=False, score_mod=None, score_mod_bwd=None, mask_mod=None,
            block_sparse_tensors=None, aux_tensors=None, aux_scalars=None, return_lse=False, **others,
        ):  # fmt: skip
            assert not any((qv, min_seqlen_k, seqused_q, seqused_k, gather_kv_indices, page_table, causal, softcap))
            assert not any((learnable_sink, pack_gqa, score_mod, score_mod_bwd, mask_mod, block_sparse_tensors))
            assert not any((aux_tensors, aux_scalars, return_lse, others))
            assert (window_size, num_splits) == ((None, None), 1)
            out = self.flash(
                q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, deterministic
            )
            return out, None

        module = ModuleType("flash_attn.cute")
        module.flash_attn_varlen_func = flash_attn_varlen_func
        return module

    def flash(self, q, k, v, starts_q, starts_k, longest_q, longest_k, scale, deterministic):
        assert starts_q is starts_k
        assert longest_q == longest_k
        self.seen = {"max_seqlen": longest_q, "deterministic": deterministic}
        return self.attend(q, k, v, starts_q, scale)

    def xformers(self) -> list[ModuleType]:
        """xformers 0.0.35."""

        @dataclass
        class _SeqLenInfo:
            seqstart: torch.Tensor
            max_seqlen: int
            min_seqlen: int
            seqstart_py: list[int]

        @dataclass
        class BlockDiagonalMask:
            q_seqinfo: _SeqLenInfo
            k_seqinfo: _SeqLenInfo
            _batch_sizes: list[int] | None = None

        def memory_efficient_attention(
            query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None, output_dtype=None
        ):
            assert isinstance(attn_bias, BlockDiagonalMask)
            assert attn_bias.q_seqinfo == attn_bias.k_seqinfo
            assert p == 0
            assert len(query) == len(key) == len(value) == 1
            lengths = attn_bias.q_seqinfo
            self.seen = {"max_seqlen": lengths.max_seqlen, "total": lengths.seqstart_py[-1]}
            return self.attend(query[0], key[0], value[0], lengths.seqstart, scale)[None]

        names = ["xformers", "xformers.ops", "xformers.ops.fmha", "xformers.ops.fmha.attn_bias"]
        modules = [ModuleType(name) for name in names]
        modules[1].memory_efficient_attention = memory_efficient_attention
        modules[3]._SeqLenInfo, modules[3].BlockDiagonalMask = _SeqLenInfo, BlockDiagonalMask
        return modules

    def varlen_attn(self):
        """A function with the signature of PyTorch's."""
        signature = inspect.signature(torch.nn.attention.varlen.varlen_attn)

        def varlen_attn(*args, **kwargs):
            passed = signature.bind(*args, **kwargs).arguments
            assert set(passed) == {"query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k", "scale"}
            assert passed["cu_seq_q"] is passed["cu_seq_k"]
            assert passed["max_q"] == passed["max_k"]
            self.seen = {"max_seqlen": passed["max_q"]}
            return self.attend(passed["query"], passed["key"], passed["value"], passed["cu_seq_q"], passed["scale"])

        return varlen_attn


@pytest.fixture
def stand_ins(monkeypatch):
    found = StandIns()
    for module in [found.flash_attn(), found.flash_attn_3(), found.flash_attn_4(), *found.xformers()]:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", found.varlen_attn())
    return found


def make_inputs(lengths=(5, 1, 9)):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 64, generator=generator, dtype=torch.float64)
    angles = torch.randn(sum(lengths), 16, generator=generator)
    return qkv, torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths), angles


def with_gradient(function, qkv):
    x = qkv.clone().requires_grad_()
    out = function(x)
    weights = torch.arange(out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), torch.autograd.grad((out * weights).sum(), x)[0]


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
def test_adapter_computes_the_reference(stand_ins, name, rotary):
    qkv, cu, longest, angles = make_inputs()
    packing = Packing(cu, longest, angles, None, rotary, SCALE)
    result = with_gradient(lambda x: BACKENDS[name].composed(x, packing), qkv)
    expected = with_gradient(lambda x: attention_reference(x, packing)[0], qkv)
    torch.testing.assert_close(result, expected)
    assert stand_ins.seen["max_seqlen"] == longest


@pytest.mark.parametrize("name", PACKED)
def test_keys_with_the_queries_lengths_are_not_masked(stand_ins, name):
    """No query can lack keys: the pass over the output would be for nothing."""
    qkv, cu, longest, _ = make_inputs()
    packing = Packing(cu, longest, None, None, "reserve", SCALE).crossed()
    with Ops() as ops:
        out = BACKENDS[name].cross_composed(qkv[:, 0], qkv[:, 1:], packing)
    torch.testing.assert_close(out, cross_attention_reference(qkv[:, 0], qkv[:, 1:], packing)[0])
    assert not [op for op in ops.names if "masked_fill" in op]


@pytest.mark.parametrize("name", FLASH)
@pytest.mark.parametrize("deterministic", [False, True])
def test_flash_attention_is_deterministic_if_pytorch_is(stand_ins, name, deterministic):
    qkv, cu, longest, angles = make_inputs()
    torch.use_deterministic_algorithms(deterministic)
    BACKENDS[name].composed(qkv, Packing(cu, longest, angles, None, "reserve", SCALE))
    assert stand_ins.seen["deterministic"] is deterministic


def test_xformers_gets_the_number_of_tokens(stand_ins):
    qkv, cu, longest, angles = make_inputs()
    attention_xformers(qkv, Packing(cu, longest, angles, None, "reserve", SCALE))
    assert stand_ins.seen["total"] == len(qkv)


@pytest.mark.parametrize("name", PACKED)
def test_no_tokens_need_no_library(name):
    qkv, cu, longest, angles = make_inputs([0, 0])
    assert BACKENDS[name].composed(qkv, Packing(cu, longest, angles, None, "reserve", SCALE)).shape == (0, 2, 64)


@pytest.mark.parametrize("name", PACKED)
def test_segment_ids_are_refused(name):
    qkv, cu, longest, angles = make_inputs()
    ids = torch.zeros(len(qkv)).int()
    with pytest.raises(ValueError, match=f"segment_ids: backend '{name}' has no such mask"):
        BACKENDS[name].composed(qkv, Packing(cu, longest, angles, ids, "reserve", SCALE))


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("slack", [0, 3])
def test_padded_sdpa_computes_the_reference(segments, slack):
    """Written for GPUs, it runs on the CPU too: empty sequences, and a bound above the longest."""
    qkv, cu, longest, angles = make_inputs([5, 0, 9, 1])
    ids = torch.arange(len(qkv)).int() % 2 if segments else None
    packing = Packing(cu, longest + slack, angles, ids, "reserve", SCALE)
    result = with_gradient(lambda x: attention_sdpa(x, packing), qkv)
    expected = with_gradient(lambda x: attention_reference(x, packing)[0], qkv)
    torch.testing.assert_close(result, expected)


def test_bad_numbers_stay_in_their_sequence_in_padded_sdpa():
    qkv, cu, longest, angles = make_inputs([5, 0, 9, 1])
    spoiled = qkv.clone()
    spoiled[0] = float("nan")
    packing = Packing(cu, longest, angles, None, "reserve", SCALE)
    results = [with_gradient(lambda x: attention_sdpa(x, packing), x) for x in (qkv, spoiled)]
    for clean, other in zip(*results, strict=True):
        torch.testing.assert_close(clean[5:], other[5:])
        assert other[:5].isnan().any()


@pytest.mark.parametrize("lengths", CROSS_LENGTHS.values(), ids=CROSS_LENGTHS.keys())
@pytest.mark.parametrize("segments", [False, True])
def test_padded_sdpa_computes_the_reference_for_keys_of_other_tokens(lengths, segments):
    """Also for heads that share keys, for bounds above the longest, and for queries without keys."""
    shape = {"heads": 4, "kv_heads": 2, "size": 32, "angles": 5, "segments": segments}
    q, kv, grad, arguments = cross_problem(*lengths, torch.float64, **shape)
    packing = CrossPacking(**arguments, rotary="standard", scale=SCALE)
    packing = packing._replace(max_seqlen=packing.max_seqlen + 2, max_seqlen_k=packing.max_seqlen_k + 3)
    found = with_gradients(lambda *x: cross_attention_sdpa(*x, packing), q, kv, grad)
    expected = with_gradients(lambda *x: cross_attention_reference(*x, packing)[0], q, kv, grad)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["flash_attn", "flash_attn_3", "flash_attn_4", "varlen", "xformers"])
def test_segment_ids_of_other_tokens_are_refused(name):
    q, kv, _, arguments = cross_problem([3], [4], segments=True)
    packing = CrossPacking(**arguments, rotary="reserve", scale=SCALE)
    with pytest.raises(ValueError, match=f"segment_ids: backend '{name}' has no such mask"):
        BACKENDS[name].cross_composed(q, kv, packing)


def test_a_library_gets_shared_keys_lengths_and_scale(monkeypatch):
    """flash-attn takes shared heads as they are, varlen a copy for each; neither decides what no keys give."""
    seen = []

    def attend(q, k, v, *starts, **named):
        seen.append((tuple(k.shape), starts, named))
        return torch.full_like(q, float("nan"))

    flash = ModuleType("flash_attn")
    flash.flash_attn_varlen_func = attend
    monkeypatch.setitem(sys.modules, "flash_attn", flash)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", attend)
    q, kv, _, arguments = cross_problem([3, 2], [0, 4], heads=4, kv_heads=2, angles=0)
    packing = CrossPacking(**arguments, rotary="reserve", scale=SCALE)
    for name in ("flash_attn", "varlen"):
        out = BACKENDS[name].cross_composed(q, kv, packing)
        assert (out[:3] == 0).all()
        assert out[3:].isnan().all()
    assert [shape for shape, *_ in seen] == [(4, 2, 64), (4, 4, 64)]
    assert seen[0][2]["cu_seqlens_k"] is packing.cu_seqlens_k
    assert (seen[0][2]["max_seqlen_q"], seen[0][2]["max_seqlen_k"], seen[0][2]["softmax_scale"]) == (3, 4, SCALE)
    assert seen[1][1][2:] == (3, 4)
