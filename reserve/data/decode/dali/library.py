"""Whether DALI can be imported."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec


def import_failure() -> str | None:
    """None if DALI can be imported, otherwise the reason as a short phrase."""
    if sys.platform != "linux":
        return "DALI runs on Linux only"
    try:
        found = find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        return "DALI is not installed: pip install 'merlot-reserve[dali]'"
    try:
        import_module("nvidia.dali.fn")
    except (ImportError, OSError, RuntimeError) as error:
        return f"DALI cannot be imported: {str(error).splitlines()[0]}"
    return None
