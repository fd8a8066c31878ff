"""Renders a page from its template. Text from videos is escaped, and a page loads nothing and runs no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any


def render(template: str, formats: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """A page of reserve/assets as HTML, with `formats` for its values as Jinja filters."""
    environment = _environment()
    environment.filters |= {"clock": clock, **formats}
    return environment.get_template(template).render(**values)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds; a dash where they are not known."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


@cache
def _environment() -> Any:
    """It keeps the compiled templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("reserve", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
