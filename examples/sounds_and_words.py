"""A training loop that uses only the ops: it matches sounds with their descriptions.

    python examples/sounds_and_words.py --help

Synthetic clips of 1 to 3 s, each described by three words ("low rising quick"), are encoded and matched within the
batch, as in CLIP. Clips of different lengths are packed, as samples and as tokens, so that attention needs no padding
and no mask. It takes about a minute on a CPU, and uses a GPU if there is one.
"""

from __future__ import annotations

import argparse
import itertools
import math

import torch
from torch import nn

from reserve_kernels import BF16AdamW, bias_quick_gelu, contrastive_loss, log_mel_spectrogram, rotary_attention

SAMPLE_RATE, HOP = 22050, 588
PITCHES = {"low": 220.0, "middle": 660.0, "high": 1980.0, "shrill": 4400.0}
SHAPES = {"steady": 0.0, "rising": 0.5, "falling": -0.5}
BEATS = {"long": 0.0, "slow": 2.0, "quick": 7.0}
DESCRIPTIONS = list(itertools.product(PITCHES, SHAPES, BEATS))
WORDS = [*PITCHES, *SHAPES, *BEATS]


def make_clip(description: tuple[str, str, str], generator: torch.Generator) -> torch.Tensor:
    """Samples of the described sound: a gliding, pulsing tone of random length, loudness and tuning, in noise."""
    pitch, shape, beat = description
    length, loudness, tuning = torch.rand(3, generator=generator).tolist()
    seconds = torch.arange(int(SAMPLE_RATE * (1 + 2 * length))) / SAMPLE_RATE
    octaves = SHAPES[shape] * seconds
    frequency = PITCHES[pitch] * (0.9 + 0.2 * tuning) * 2**octaves
    tone = torch.sin(2 * math.pi * torch.cumsum(frequency, 0) / SAMPLE_RATE)
    pulse = 0.5 + 0.5 * torch.cos(2 * math.pi * BEATS[beat] * seconds)
    return (0.2 + 0.3 * loudness) * tone * pulse + 0.02 * torch.randn(len(seconds), generator=generator)


class Block(nn.Module):
    """A pre-norm transformer layer over packed tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, cu_seqlens: torch.Tensor, longest: int, angles: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(self.norms[0](x)).unflatten(-1, (3, -1, 64))
        attended = rotary_attention(qkv, cu_seqlens, longest, angles=angles, rotary="standard")
        x = x + self.projection(attended.flatten(1))
        # The activation adds the bias of the product.
        wide = nn.functional.linear(self.norms[1](x), self.wide.weight)
        return x + self.narrow(bias_quick_gelu(wide, self.wide.bias))


class Matcher(nn.Module):
    """Encodes sounds and descriptions into one space."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.frames = nn.Linear(64, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.sound_head = nn.Linear(width, width)
        self.words = nn.EmbeddingBag(len(WORDS), width, mode="sum")
        self.text_head = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def encode_sounds(self, clips: list[torch.Tensor]) -> torch.Tensor:
        """Clips of any lengths -> [clips, width]."""
        device = self.log_scale.device
        offsets = torch.tensor([0, *(len(clip) for clip in clips)]).cumsum(0)
        longest = max(len(clip) for clip in clips)
        samples = torch.cat(clips).to(device)
        mel = log_mel_spectrogram(samples, offsets=offsets.to(device), max_samples=longest)
        counts = 1 + offsets.diff() // HOP
        # Each clip's own frames, one clip after another.
        position = torch.cat([torch.arange(count) for count in counts.tolist()])
        clip = torch.repeat_interleave(torch.arange(len(clips)), counts)
        x = self.frames(mel[clip.to(device), position.to(device)])
        cu_seqlens = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0))).int().to(device)
        angles = (position[:, None] * 100.0 ** -(torch.arange(16) / 16)).to(device)
        for block in self.blocks:
            x = block(x, cu_seqlens, int(counts.max()), angles)
        pooled = x.new_zeros(len(clips), x.shape[1]).index_add(0, clip.to(device), x)
        return self.sound_head(pooled / counts.to(device)[:, None])

    def encode_descriptions(self, descriptions: list[tuple[str, str, str]]) -> torch.Tensor:
        """-> [descriptions, width]."""
        ids = torch.tensor([[WORDS.index(word) for word in description] for description in descriptions])
        return self.text_head(self.words(ids.to(self.log_scale.device)))


def make_batch(size: int, generator: torch.Generator) -> tuple[list[torch.Tensor], list[tuple[str, str, str]]]:
    """Clips with different descriptions."""
    chosen = torch.randperm(len(DESCRIPTIONS), generator=generator)[:size].tolist()
    descriptions = [DESCRIPTIONS[i] for i in chosen]
    return [make_clip(description, generator) for description in descriptions], descriptions


@torch.no_grad()
def accuracy(model: Matcher, batches: int, generator: torch.Generator) -> float:
    """How often a new clip is nearest to its own description, of all there are."""
    texts = nn.functional.normalize(model.encode_descriptions(DESCRIPTIONS), dim=-1)
    right = []
    for _ in range(batches):
        clips, descriptions = make_batch(len(DESCRIPTIONS), generator)
        nearest = (nn.functional.normalize(model.encode_sounds(clips), dim=-1) @ texts.T).argmax(-1)
        right += [DESCRIPTIONS[int(i)] == own for i, own in zip(nearest, descriptions, strict=True)]
    return sum(right) / len(right)


def train(steps: int, batch_size: int, seed: int = 0) -> tuple[list[float], float]:
    """The loss of each step, and the accuracy on new clips at the end."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Matcher().to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = BF16AdamW(model.parameters(), 1e-3)
    losses = []
    for step in range(1, steps + 1):
        clips, descriptions = make_batch(batch_size, generator)
        sounds, texts = model.encode_sounds(clips), model.encode_descriptions(descriptions)
        loss = contrastive_loss(sounds, texts, model.log_scale).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")
    return losses, accuracy(model, 4, generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=24, help=f"at most {len(DESCRIPTIONS)}, the descriptions")
    options = parser.parse_args()
    _, right = train(options.steps, options.batch_size)
    print(f"new clips matched with the right one of {len(DESCRIPTIONS)} descriptions: {right:.0%}")


if __name__ == "__main__":
    main()
