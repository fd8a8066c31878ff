"""Tile shapes of the Triton kernels: the candidates, and the choice for each chip, length class and kernel.

CHOSEN holds the library's choices. `python -m reserve_kernels.attention.tune` measures all candidates on the current
GPU and writes its choices to `tuned_file`, which then takes precedence. A call of the op never tunes.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import warnings
from pathlib import Path
from typing import NamedTuple


class Chip(NamedTuple):
    """A kind of GPU: ten times its compute capability, and its name."""

    architecture: int
    name: str


INTERPRETED = Chip(90, "interpreter")
"""The chip whose tiles the interpreter uses."""


class Tile(NamedTuple):
    """Queries and keys of a tile, warps that work on it, and pipeline stages of its loads."""

    queries: int
    keys: int
    warps: int
    stages: int


LENGTH_CLASSES = {"tiny": 32, "short": 64, "medium": 256, "long": None}
"""The longest sequence of each class. Spans and audio are tiny, vision is medium, the joint model is long."""

SHARED = ("short_forward", "short_backward")
"""Kernels in which whole sequences share a tile, which must hold the longest sequence of the class."""
WALKING = ("forward", "dq", "dkv")
"""Kernels that loop over a sequence tile by tile; any tile works."""

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
            Tile(64, 128, 4, 2),
            Tile(128, 64, 4, 2),
            Tile(128, 64, 4, 3),
            Tile(128, 64, 8, 2),
            Tile(128, 64, 8, 3),
            Tile(128, 128, 8, 2),
            Tile(64, 32, 4, 3),
        ),
        "dq": (
            Tile(64, 64, 4, 2),
            Tile(64, 64, 4, 3),
            Tile(128, 64, 8, 2),
            Tile(128, 64, 8, 3),
            Tile(64, 32, 4, 3),
        ),
        "dkv": (
            Tile(64, 64, 4, 2),
            Tile(64, 64, 4, 3),
            Tile(64, 64, 8, 2),
            Tile(64, 128, 8, 2),
            Tile(64, 128, 8, 3),
            Tile(32, 64, 4, 2),
        ),
    },
}
CANDIDATES[100] = CANDIDATES[90]
"""Every tile that can be picked, by family of chips. The tests compile each of them for its family."""

_SHORT = {"short_forward": Tile(64, 64, 4, 1), "short_backward": Tile(64, 64, 4, 1)}
_MEDIUM = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 64, 4, 2), "dkv": Tile(64, 64, 4, 2)}
_LONG = {"forward": Tile(128, 64, 8, 2), "dq": Tile(128, 64, 8, 2), "dkv": Tile(64, 128, 8, 2)}
# Measured on an H100 (docs/kernels/attention.md).
_HOPPER = {"forward": Tile(64, 64, 4, 3), "dq": Tile(128, 64, 8, 3), "dkv": Tile(64, 64, 4, 3)}
_MEDIUM_80 = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 32, 4, 2), "dkv": Tile(32, 64, 8, 2)}
CHOSEN: dict[int, dict[str, dict[str, Tile]]] = {
    80: {
        "tiny": {"short_forward": Tile(32, 32, 4, 1), "short_backward": Tile(32, 32, 4, 1)},
        "short": _MEDIUM_80,
        "medium": _MEDIUM_80,
        "long": {"forward": Tile(128, 64, 8, 2), "dq": Tile(128, 32, 8, 2), "dkv": Tile(32, 64, 8, 2)},
    },
    90: {"tiny": _SHORT, "short": _SHORT, "medium": _HOPPER, "long": _HOPPER},
    100: {"tiny": _SHORT, "short": _SHORT, "medium": _MEDIUM | {"dkv": Tile(64, 64, 8, 2)}, "long": _LONG},
}
"""The choice of each family of chips, by length class and kernel. A class uses SHARED kernels or WALKING ones."""


_NARROW = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 64, 4, 2), "dkv": Tile(64, 64, 4, 2)}
_WIDE = {"forward": Tile(64, 64, 4, 2), "dq": Tile(64, 64, 4, 2), "dkv": Tile(64, 64, 8, 2)}
_WIDE_80 = {"forward": Tile(32, 64, 4, 2), "dq": Tile(32, 32, 4, 2), "dkv": Tile(32, 64, 8, 2)}
OTHER_SIZES: dict[int, dict[int, dict[str, Tile]]] = {
    80: {32: _MEDIUM_80, 96: _WIDE_80, 128: _WIDE_80},
    90: {32: _NARROW, 96: _WIDE, 128: _WIDE},
    100: {32: _NARROW, 96: _WIDE, 128: _WIDE},
}
"""The choice for heads that have not 64 numbers, by family of chips and head size, for sequences of any length.

Chosen by what compiles without spills; not measured. The tuner does not change them.
"""


def family(architecture: int) -> int:
    """The key in CANDIDATES and CHOSEN for compute capability `architecture` / 10.

    Consumer chips have sm_80's tensor-core instructions and less shared memory, whatever their number.
    """
    return architecture // 10 * 10 if architecture // 10 in (9, 10) else 80


def length_class(max_seqlen: int) -> str:
    """The class of a batch whose longest sequence has `max_seqlen` tokens."""
    return next(name for name, longest in LENGTH_CLASSES.items() if longest is None or max_seqlen <= longest)


def pick(
    chip: Chip, max_seqlen: int, *, segments: bool = False, size: int = 64, shares: bool = True
) -> dict[str, Tile]:
    """The tile of each kernel that runs a batch of heads of `size` numbers: in SHARED, if `shares`, or in WALKING.

    With segment ids it is always the library's choice: the tuner measures without them, and some candidates would spill
    registers with them.
    """
    if size != 64:
        return OTHER_SIZES[family(chip.architecture)][size]
    name = length_class(max_seqlen)
    if not shares and name in ("tiny", "short"):
        name = "medium"  # the shortest class that has kernels in WALKING on every chip
    chosen = CHOSEN[family(chip.architecture)][name]
    return chosen if segments else chosen | tuned(chip).get(name, {})


def tuned_file(chip: Chip) -> Path:
    """Where the tuner stores its choices for a chip and this version of Triton, in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    triton = importlib.metadata.version("triton")
    name = f"rotary_attention_{chip.name}_sm{chip.architecture}_triton{triton}.json"
    return Path(cache) / "reserve_kernels" / name.replace(" ", "_").replace("/", "_")


@functools.cache
def tuned(chip: Chip) -> dict[str, dict[str, Tile]]:
    """The tuner's choices for a chip, by length class and kernel; empty if it has not run.

    Read once a process. A file that cannot be used is ignored with a warning.
    """
    file = tuned_file(chip)
    try:
        return read_choices(file.read_text(), family(chip.architecture))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"rotary_attention: {file} is ignored: {error}; tune again or remove it", stacklevel=2)
        return {}


def read_choices(text: str, chips: int) -> dict[str, dict[str, Tile]]:
    """Parses and validates what `write_choices` wrote, for the family `chips`.

    Raises ValueError if it is something else, or names a tile that is not a candidate, which the tests do not cover.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not all(isinstance(kernels, dict) for kernels in content.values()):
        raise ValueError("it must be a table of tiles by length class and kernel")
    choices: dict[str, dict[str, Tile]] = {}
    for name, kernels in content.items():
        for kernel, shape in kernels.items():
            allowed = CANDIDATES[chips][kernel] if kernel in CHOSEN[chips].get(name, {}) else ()
            tile = next((t for t in allowed if list(t) == shape and holds(kernel, t, name)), None)
            if tile is None:
                raise ValueError(f"{shape} is not a candidate for {kernel!r} of {name!r}")
            choices.setdefault(name, {})[kernel] = tile
    return choices


def write_choices(choices: dict[str, dict[str, Tile]], file: Path) -> None:
    """Writes `file` atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(choices, indent=1) + "\n")
    unfinished.replace(file)


def holds(kernel: str, tile: Tile, name: str) -> bool:
    """Whether `tile` works for all sequences of the length class `name`."""
    longest = LENGTH_CLASSES[name]
    return kernel in WALKING or (longest is not None and tile.queries >= longest)
