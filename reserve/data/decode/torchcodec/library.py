"""Importing torchcodec, and what it is not for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from reserve.errors import EnvironmentFailure
from reserve.fs import is_environment_failure

FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""FFmpeg's names of the containers whose packets all have presentation times and whose key frames a seek finds."""


class Refused(Exception):
    """What torchcodec would decode otherwise than the contract says, or not at all. The message is the reason."""


def import_torchcodec() -> Any:
    """The module `torchcodec.decoders`, or an ImportError that says in one line what to install."""
    reason = _import_failure()
    if reason is not None:
        raise ImportError(reason)
    import torchcodec.decoders

    return torchcodec.decoders


@cache
def _import_failure() -> str | None:
    """Why torchcodec cannot be imported. Its own text lists the tracebacks of five versions of FFmpeg."""
    try:
        release = version("torchcodec")
    except PackageNotFoundError:
        return "it needs torchcodec: pip install 'merlot-reserve[torchcodec]'"
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return _explained(str(error), release)
    return None


def _explained(failure: str, release: str) -> str:
    found = [line for line in failure.splitlines() if line.startswith("OSError:")]
    if found and all("libav" in line and "cannot open shared object file" in line for line in found):
        return (
            "torchcodec finds none of FFmpeg's libraries (versions 4 to 8): install FFmpeg, or put the folder that "
            "holds them into LD_LIBRARY_PATH before Python starts"
        )
    if found:
        return (
            f"torchcodec {release} cannot load: install the release that is made for torch {version('torch')}, and "
            "FFmpeg's shared libraries (versions 4 to 8)"
        )
    return f"torchcodec {release} cannot be imported: {failure.strip().splitlines()[0] if failure.strip() else '?'}"


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turns whatever torchcodec raises on a file into Refused."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, AssertionError, OSError, MemoryError) as error:
        if is_environment_failure(error):
            raise EnvironmentFailure(f"{doing}: {error}") from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # torchcodec's checks begin with their place in its sources.
        reason = re.sub(r"^.*\.cpp:\d+, ", "", lines[0])[:120].rstrip()
        raise Refused(f"{doing}: {reason}") from error
