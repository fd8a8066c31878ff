"""Tile shapes of the Triton kernels: which can be picked, and which is picked for what.

For each family of chips there is a choice per length class and kernel, in CHOSEN. `python -m
reserve_kernels.attention.tune` measures all candidates on the GPU at hand and writes its choices to `tuned_file`, which
then comes before CHOSEN. Nothing is ever tried out in a call of the op.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import NamedTuple


class Tile(NamedTuple):
    """Queries and keys of a tile, warps that work on it, and stages of loads in flight."""

    queries: int
    keys: int
    warps: int
    stages: int


LENGTH_CLASSES = {"tiny": 32, "short": 64, "medium": 256, "long": None}
"""The longest sequence of each class: spans and audio, vision, and the joint model's are tiny, medium and long."""

SHARED = ("short_forward", "short_backward")
"""Kernels in which whole sequences share a tile: it must hold the longest sequence of the class."""
WALKING = ("forward", "dq", "dkv")
"""Kernels that walk over a sequence tile by tile: any tile will do."""

CANDIDATES: dict[int, dict[str, tuple[Tile, ...]]] = {
    80: {
        "short_forward": (Tile(32, 32, 4, 1), Tile(32, 32, 2, 1)),
        "short_backward": (Tile(32, 32, 4, 1), Tile(32, 32, 2, 1)),
        "forward": (Tile(64, 64, 4, 2), Tile(64, 64, 4, 3), Tile(128, 64, 8, 2), Tile(128, 64, 8, 3)),
        "dq": (Tile(64, 32, 4, 2), Tile(128, 32, 8, 2)),
        "dkv": (Tile(32, 64, 8, 2), Tile(32, 128, 8, 1), Tile(16, 64, 4, 2)),
    },
    90: {
        "short_forward": (Tile(64, 64, 4, 1), Tile(64, 64, 8, 1)),
        "short_backward": (Tile(64, 64, 4, 1), Tile(64, 64, 8, 1)),
        "forward": (
            Tile(64, 64, 4, 2),
            Tile(64, 64, 4, 3),
            Tile(128, 64, 8, 2),
            Tile(128, 64, 8, 3),
            Tile(128, 128, 8, 2),
        ),
        "dq": (Tile(64, 64, 4, 2), Tile(128, 64, 8, 2), Tile(128, 64, 8, 1)),
        "dkv": (Tile(64, 64, 4, 2), Tile(64, 128, 8, 2), Tile(64, 128, 8, 1)),
    },
}
CANDIDATES[100] = CANDIDATES[90] | {"dkv": (Tile(64, 64, 8, 2), Tile(64, 128, 8, 2))}
"""Everything that can be picked, for each family of chips. Each is compiled for it in the tests."""

_SHORT = {"short_forward": Tile(64, 64, 4, 1), "short_backward": Tile(64, 64, 4, 1)}
_MEDIUM = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 64, 4, 2), "dkv": Tile(64, 64, 4, 2)}
_LONG = {"forward": Tile(128, 64, 8, 2), "dq": Tile(128, 64, 8, 2), "dkv": Tile(64, 128, 8, 2)}
_MEDIUM_80 = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 32, 4, 2), "dkv": Tile(32, 64, 8, 2)}
CHOSEN: dict[int, dict[str, dict[str, Tile]]] = {
    80: {
        "tiny": {"short_forward": Tile(32, 32, 4, 1), "short_backward": Tile(32, 32, 4, 1)},
        "short": _MEDIUM_80,
        "medium": _MEDIUM_80,
        "long": {"forward": Tile(128, 64, 8, 2), "dq": Tile(128, 32, 8, 2), "dkv": Tile(32, 64, 8, 2)},
    },
    90: {"tiny": _SHORT, "short": _SHORT, "medium": _MEDIUM, "long": _LONG},
    100: {"tiny": _SHORT, "short": _SHORT, "medium": _MEDIUM | {"dkv": Tile(64, 64, 8, 2)}, "long": _LONG},
}
"""The choice of each family of chips, per length class and kernel. The kernels of a class are SHARED or WALKING."""


def family(architecture: int) -> int:
    """The key in CANDIDATES and CHOSEN for compute capability `architecture` / 10.

    Consumer chips have the tensor-core instructions and less than the shared memory of sm_80, whatever their number.
    """
    return architecture // 10 * 10 if architecture // 10 in (9, 10) else 80


def length_class(max_seqlen: int) -> str:
    """The class of a batch whose longest sequence has `max_seqlen` tokens."""
    return next(name for name, longest in LENGTH_CLASSES.items() if longest is None or max_seqlen <= longest)


def pick(architecture: int, max_seqlen: int) -> dict[str, Tile]:
    """The tile of each kernel that runs a batch: of those in SHARED or of those in WALKING."""
    name = length_class(max_seqlen)
    return CHOSEN[family(architecture)][name] | tuned(architecture).get(name, {})


def tuned_file(architecture: int) -> Path:
    """Where the tuner keeps its choices for a chip, under the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "reserve_kernels" / f"rotary_attention_sm{architecture}.json"


@functools.cache
def tuned(architecture: int) -> dict[str, dict[str, Tile]]:
    """The tuner's choices for a chip, per length class and kernel; empty where it has not run.

    Read once per process. Raises ValueError where the file names what is no candidate: the tests have not seen it.
    """
    file = tuned_file(architecture)
    return read_choices(file, family(architecture)) if file.exists() else {}


def read_choices(file: Path, chips: int) -> dict[str, dict[str, Tile]]:
    """The choices in `file`, checked against the candidates of the family `chips`."""
    choices: dict[str, dict[str, Tile]] = {}
    for name, kernels in json.loads(file.read_text()).items():
        for kernel, shape in kernels.items():
            tile = Tile(*shape)
            if kernel not in CHOSEN[chips].get(name, {}) or tile not in CANDIDATES[chips][kernel]:
                raise ValueError(f"{file}: {tile} is no candidate for {kernel!r} of {name!r}; tune again or remove it")
            choices.setdefault(name, {})[kernel] = tile
    return choices
