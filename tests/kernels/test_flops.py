"""FlopCounterMode counts the ops: their products, and no padding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from reserve_kernels import contrastive_loss, log_mel_spectrogram, rotary_attention
from reserve_kernels.log_mel.reference import log_mel_reference
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.kernels.attention_cases import cross_problem

HEADS, LENGTHS = 2, [3, 0, 5, 1]
SQUARES = sum(length**2 for length in LENGTHS)


def packed() -> tuple[torch.Tensor, torch.Tensor, int]:
    qkv = torch.randn(sum(LENGTHS), 3, HEADS, 64, requires_grad=True)
    return qkv, torch.tensor([0, *LENGTHS]).cumsum(0).int(), max(LENGTHS)


def test_attention_counts_pairs_that_attend():
    with FlopCounterMode(display=False) as forward:
        out = rotary_attention(*packed())
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == 4 * 64 * HEADS * SQUARES
    assert backward.get_total_flops() == 10 * 64 * HEADS * SQUARES


def test_attention_counts_as_pytorch_counts_its_own():
    """One sequence without padding is what scaled_dot_product_attention computes."""
    length = 7
    qkv = torch.randn(length, 3, HEADS, 64)
    with FlopCounterMode(display=False) as ours:
        rotary_attention(qkv, torch.tensor([0, length], dtype=torch.int32), length)
    q, k, v = (part.transpose(0, 1) for part in qkv.unbind(1))
    with FlopCounterMode(display=False) as theirs:
        torch.softmax(q @ k.mT, -1) @ v
    assert ours.get_total_flops() == theirs.get_total_flops()


def test_tokens_of_other_segments_do_not_count():
    segments = torch.tensor([1, 0, 1, 4, 4, 0, 4, 4, 0], dtype=torch.int32)
    with FlopCounterMode(display=False) as mode:
        rotary_attention(*packed(), segment_ids=segments)
    # [1, 0, 1], then [4, 4, 0, 4, 4], then [0].
    assert mode.get_total_flops() == 4 * 64 * HEADS * ((2**2 + 1) + (4**2 + 1) + 1)


def test_lengths_that_are_not_known_count_as_the_longest():
    with FakeTensorMode():
        qkv, cu_seqlens, longest = torch.empty(9, 3, HEADS, 64), torch.empty(5, dtype=torch.int32), 5
        with FlopCounterMode(display=False) as mode:
            torch.ops.reserve_kernels.rotary_attention(
                qkv, cu_seqlens, longest, None, None, "reserve", 0.125, "reference"
            )
    assert mode.get_total_flops() == 4 * 64 * HEADS * 9 * 5


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_the_contrastive_loss_counts_three_products_of_each_problem(backend):
    pairs, extra, dim = 6, 4, 16
    x, y, more = (torch.randn(n, dim, requires_grad=True) for n in (pairs, pairs, extra))
    with FlopCounterMode(display=False) as mode:
        contrastive_loss(x, y, 1.0, y_extra=more, backend=backend).loss.backward()
    assert mode.get_total_flops() == 6 * pairs * (pairs + extra) * dim


@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
def test_the_sigmoid_loss_counts_three_products_wherever_its_gradients_are_made(backend):
    pairs, extra, dim = 6, 4, 16
    x, y, more = (torch.randn(n, dim, requires_grad=True) for n in (pairs, pairs, extra))
    with FlopCounterMode(display=False) as mode:
        contrastive_loss(x, y, 1.0, kind="sigmoid", x_extra=more, backend=backend).loss.backward()
    assert mode.get_total_flops() == 6 * pairs * (pairs + extra) * dim


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_log_mel_counts_as_pytorch_counts_its_definition(backend):
    waveform, settings = torch.randn(2, 3, 4000, requires_grad=True), {"n_fft": 512, "hop_length": 100, "n_mels": 40}
    with FlopCounterMode(display=False) as ours:
        log_mel_spectrogram(waveform, **settings, append_speed=True, backend=backend).sum().backward()
    definition = LogMelSettings("reflect", 22050.0, 512, 100, 40, 20.0, 11025.0, 0.1)
    with FlopCounterMode(display=False) as theirs:
        log_mel_reference(waveform, definition).sum().backward()
    assert ours.get_total_flops() == theirs.get_total_flops() == 2 * 2 * (6 * 41) * 257 * 40


COUNT = """
with FlopCounterMode(display=False) as counter:
    reserve_kernels.contrastive_loss(torch.ones(2, 8), torch.ones(2, 8), 1.0)
print(counter.get_total_flops())
"""
IMPORTS = {
    "the counter first": "from torch.utils.flop_counter import FlopCounterMode\nimport reserve_kernels",
    "the counter looked up": (
        "import importlib.util, reserve_kernels\nimportlib.util.find_spec('torch.utils.flop_counter')\n"
        "from torch.utils.flop_counter import FlopCounterMode"
    ),
    "the counter last": (
        "import reserve_kernels, sys\nassert 'triton' not in sys.modules\n"
        "from torch.utils.flop_counter import FlopCounterMode"
    ),
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS.keys())
def test_the_ops_count_whatever_is_imported_first(imports):
    code = f"import torch\n{imports}\n{COUNT}"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.stdout == "64\n", result.stderr


@pytest.mark.parametrize("segments", [False, True])
def test_cross_attention_counts_pairs_that_attend(segments):
    q, kv, grad, arguments = cross_problem([3, 5], [4, 2], heads=4, kv_heads=2, size=32, segments=segments)
    pairs = 3 * 4 + 5 * 2
    if segments:
        of_query, of_key = torch.tensor([0] * 3 + [1] * 5), torch.tensor([0] * 4 + [1] * 2)
        same = arguments["segment_ids"][:, None] == arguments["segment_ids_k"]
        pairs = int((same & (of_query[:, None] == of_key)).sum())
    with FlopCounterMode(display=False) as counter:
        out = rotary_attention(q.requires_grad_(), kv=kv.requires_grad_(), **arguments)
        torch.autograd.grad(out, (q, kv), grad)
    assert counter.get_total_flops() == 7 * 2 * 4 * 32 * pairs
