"""The check of a setting's range."""

from __future__ import annotations

import math
from typing import Any


def check_range(section: Any, prefix: str, low: float, high: float, *names: str) -> None:
    """Raises ValueError naming the first of the fields `names` that is not in [low, high]."""
    for name in names:
        if not low <= getattr(section, name) <= high:
            allowed = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
            raise ValueError(f"{prefix}.{name} must be {allowed}; got {getattr(section, name)}")
