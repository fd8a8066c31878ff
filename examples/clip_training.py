"""CLIP-style training on the modules of reserve_kernels.nn: it matches pictures with their captions.

    python examples/clip_training.py --help

Pictures of 32 x 32 pixels show a shape of some colour at some place, and captions name the three ("red ring left").
Both are encoded by transformers over packed tokens, and matched within the batch by CLIP's softmax or SigLIP's sigmoid
loss.
It takes about a minute on a CPU, and uses a GPU if there is one.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import nn

from reserve_kernels import BF16AdamW
from reserve_kernels.nn import ContrastiveLoss, LinearQuickGELU, RotaryAttention

SIZE, PATCH = 32, 8
COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 0.9, 0.2), "blue": (0.2, 0.3, 1.0), "yellow": (0.9, 0.9, 0.1)}
SHAPES = ("disc", "ring", "square")
PLACES = {"left": (16, 9), "right": (16, 23), "above": (9, 16), "below": (23, 16)}
CAPTIONS = list(itertools.product(COLOURS, SHAPES, PLACES))
WORDS = [*COLOURS, *SHAPES, *PLACES]


def make_picture(caption: tuple[str, str, str], generator: torch.Generator) -> torch.Tensor:
    """[3, 32, 32] from 0 to 1 of what the caption says, a little off its place and of any size, in noise."""
    colour, shape, place = caption
    row, column, radius = (torch.rand(3, generator=generator) * torch.tensor([4.0, 4.0, 2.0])).tolist()
    centre = torch.tensor([PLACES[place][0] + row - 2, PLACES[place][1] + column - 2])
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"), -1) - centre
    distance = grid.abs().amax(-1) if shape == "square" else grid.norm(dim=-1)
    inside = distance < 5 + radius
    if shape == "ring":
        inside &= distance > 2.5 + radius
    picture = 0.2 * torch.rand(3, SIZE, SIZE, generator=generator)
    return torch.where(inside, torch.tensor(COLOURS[colour])[:, None, None], picture)


def make_batch(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [size, 3, 32, 32] and words [size, 3] of different captions."""
    chosen = torch.randperm(len(CAPTIONS), generator=generator)[:size].tolist()
    captions = [CAPTIONS[i] for i in chosen]
    pictures = torch.stack([make_picture(caption, generator) for caption in captions])
    return pictures, torch.tensor([[WORDS.index(word) for word in caption] for caption in captions])


class Encoder(nn.Module):
    """Pre-norm transformer layers over sequences of one length, and the mean of their tokens."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(RotaryAttention(width, width // 64) for _ in range(layers))
        self.wide = nn.ModuleList(LinearQuickGELU(width, 4 * width) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.head = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[sequences, length, width] -> [sequences, width]."""
        sequences, length, _ = tokens.shape
        cu_seqlens = torch.arange(0, (sequences + 1) * length, length, dtype=torch.int32, device=tokens.device)
        position = torch.arange(length, device=tokens.device).repeat(sequences)
        angles = position[:, None] * 100.0 ** -(torch.arange(16, device=tokens.device) / 16)
        x = tokens.flatten(0, 1)
        for i, (attention, wide, narrow) in enumerate(zip(self.attention, self.wide, self.narrow, strict=True)):
            x = x + attention(self.norms[2 * i](x), cu_seqlens, length, angles)
            x = x + narrow(wide(self.norms[2 * i + 1](x)))
        return self.head(x.unflatten(0, (sequences, length)).mean(1))


class Matcher(nn.Module):
    """Encodes pictures and captions into one space, and scores how well pairs match."""

    def __init__(self, kind: str, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * PATCH * PATCH, width)
        self.places = nn.Parameter(0.02 * torch.randn((SIZE // PATCH) ** 2, width))
        self.words = nn.Embedding(len(WORDS), width)
        self.picture_encoder, self.caption_encoder = Encoder(width, layers), Encoder(width, layers)
        self.loss = ContrastiveLoss(kind)

    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        patches = pictures.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.picture_encoder(self.patches(patches) + self.places)

    def encode_captions(self, words: torch.Tensor) -> torch.Tensor:
        return self.caption_encoder(self.words(words))

    def forward(self, pictures: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return self.loss(self.encode_pictures(pictures), self.encode_captions(words))


@torch.no_grad()
def accuracy(model: Matcher, generator: torch.Generator, batches: int = 4) -> float:
    """How often a new picture is nearest to its own caption, of all there are."""
    device = model.places.device
    right = []
    for _ in range(batches):
        pictures, words = (x.to(device) for x in make_batch(len(CAPTIONS), generator))
        of_pictures, of_captions = (
            nn.functional.normalize(x, dim=-1) for x in (model.encode_pictures(pictures), model.encode_captions(words))
        )
        nearest = (of_pictures @ of_captions.T).argmax(-1)
        right.append((nearest == torch.arange(len(words), device=device)).float().mean().item())
    return sum(right) / len(right)


def train(steps: int, batch_size: int, kind: str = "softmax", seed: int = 0) -> tuple[list[float], float]:
    """The loss of each step, and the accuracy on new pictures at the end."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Matcher(kind).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = BF16AdamW(model.parameters(), 1e-3)
    losses = []
    for step in range(1, steps + 1):
        pictures, words = (x.to(model.places.device) for x in make_batch(batch_size, generator))
        loss = model(pictures, words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")
    return losses, accuracy(model, generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=32, help=f"at most {len(CAPTIONS)}, the captions")
    parser.add_argument("--kind", choices=("softmax", "sigmoid"), default="softmax", help="of the loss")
    options = parser.parse_args()
    if not 1 <= options.batch_size <= len(CAPTIONS):
        parser.error(f"--batch_size must be from 1 to {len(CAPTIONS)}; got {options.batch_size}")
    _, right = train(options.steps, options.batch_size, options.kind)
    print(f"new pictures matched with the right one of {len(CAPTIONS)} captions: {right:.0%}")


if __name__ == "__main__":
    main()
