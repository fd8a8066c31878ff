from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import BF16AdamW, bias_quick_gelu, contrastive_loss, log_mel_spectrogram, nn, rotary_attention


def test_log_mel_spectrogram_is_the_function():
    waveform = torch.randn(2, 4000)
    module = nn.LogMelSpectrogram("whisper", n_mels=40, backend="reference")
    expected = log_mel_spectrogram(waveform, preset="whisper", n_mels=40, backend="reference")
    assert torch.equal(module(waveform), expected)
    offsets = torch.tensor([0, 1500, 4000])
    ragged = nn.LogMelSpectrogram(append_speed=True, playback_speed=2)(waveform[0], offsets, 2500)
    arguments = {"append_speed": True, "playback_speed": 2, "offsets": offsets, "max_samples": 2500}
    assert torch.equal(ragged, log_mel_spectrogram(waveform[0], **arguments))
    assert "whisper" in repr(module)
    assert "n_mels=40" in repr(module)


def test_a_window_moves_with_its_module():
    module = nn.LogMelSpectrogram(window=torch.hann_window(1536)).to("meta")
    assert module.window.device.type == "meta"
    assert module(torch.empty(3000, device="meta")).shape == (6, 64)
    assert module.state_dict() == {}


def test_settings_are_checked_when_the_module_is_made():
    with pytest.raises(ValueError, match="n_mels must be an integer from 1"):
        nn.LogMelSpectrogram("kaldi", n_mels=0)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_contrastive_loss_is_the_function_and_learns_its_scale(kind):
    x, y, extra = (torch.randn(6, 16, requires_grad=True) for _ in range(3))
    module = nn.ContrastiveLoss(kind)
    loss = module(x, y, y_extra=extra)
    bias = -10.0 if kind == "sigmoid" else None
    log_scale = math.log(10.0) if kind == "sigmoid" else math.log(1 / 0.07)
    expected = contrastive_loss(x, y, log_scale, kind=kind, bias=bias, y_extra=extra).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    names = [name for name, _ in module.named_parameters()]
    assert names == (["log_scale", "bias"] if kind == "sigmoid" else ["log_scale"])
    assert all(p.grad is not None and p.grad != 0 for p in module.parameters())


def test_what_is_not_learned_is_saved_all_the_same():
    module = nn.ContrastiveLoss("sigmoid", log_scale=1.0, bias=-3.0, learn=False)
    assert not list(module.parameters())
    assert {name: float(value) for name, value in module.state_dict().items()} == {"log_scale": 1.0, "bias": -3.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ContrastiveLoss("hinge"), "kind must be 'softmax' or 'sigmoid'; got 'hinge'"),
        (lambda: nn.ContrastiveLoss(bias=0.0), "bias is for kind='sigmoid'"),
        (lambda: nn.RotaryAttention(80, 2), "dim / heads must be one of 32, 64, 96, 128; got dim=80, heads=2"),
        (lambda: nn.RotaryAttention(128, 0), "dim / heads must be one of .*; got dim=128, heads=0"),
        (lambda: nn.RotaryAttention(128, 2, rotary="rope"), "rotary must be 'reserve' or 'standard'; got 'rope'"),
        (lambda: nn.RotaryAttention(128, 2, backend="fast"), "backend must be 'auto' or one of .*; got 'fast'"),
        (lambda: nn.ContrastiveLoss(exchange="star"), "exchange must be 'gather' or 'ring'; got 'star'"),
        (lambda: nn.ContrastiveLoss(backend="fast"), "backend must be 'auto' or one of .*; got 'fast'"),
        (lambda: nn.LogMelSpectrogram(backend="fast"), "backend must be 'auto' or one of .*; got 'fast'"),
        (lambda: nn.LogMelSpectrogram("whisper", append_speed=True), "append_speed must be False with bands_first"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_linear_quick_gelu_is_a_linear_layer_and_its_activation():
    module, linear = nn.LinearQuickGELU(8, 12), torch.nn.Linear(8, 12)
    linear.load_state_dict(module.state_dict())
    x = torch.randn(5, 8)
    z = linear(x)
    torch.testing.assert_close(module(x), z * torch.sigmoid(1.702 * z))
    without = nn.LinearQuickGELU(8, 12, bias=False)
    torch.testing.assert_close(without(x), bias_quick_gelu(x @ without.weight.T))


def test_rotary_attention_projects_and_attends():
    module = nn.RotaryAttention(128, 2)
    x, angles = torch.randn(9, 128), torch.randn(9, 16)
    cu_seqlens = torch.tensor([0, 4, 9], dtype=torch.int32)
    qkv = module.qkv(x).view(9, 3, 2, 64)
    expected = module.out(rotary_attention(qkv, cu_seqlens, 5, angles=angles, rotary="standard").flatten(1))
    torch.testing.assert_close(module(x, cu_seqlens, 5, angles), expected)


def test_modules_train_together():
    """A sound and its own copy in noise are pulled together."""
    torch.manual_seed(0)
    mel, head, loss = nn.LogMelSpectrogram("kaldi", n_mels=40), nn.LinearQuickGELU(40, 16), nn.ContrastiveLoss()
    optimizer = BF16AdamW([*head.parameters(), *loss.parameters()], 1e-2)
    sounds = torch.randn(8, 2000).cumsum(1) * 0.01
    noisy = sounds + 0.01 * torch.randn(8, 2000)
    losses = []
    for _ in range(20):
        x, y = (head(mel(s).mean(1)) for s in (sounds, noisy))
        value = loss(x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value))
    assert losses[-1] < losses[0]
