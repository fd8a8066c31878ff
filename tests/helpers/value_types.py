"""The types of the values of a record, to compare the fields of two data sets."""

from __future__ import annotations

from typing import Any


def types_of(value: Any) -> Any:
    """A map's fields with their types, the set of types of a list's items, or the name of a type."""
    if isinstance(value, dict):
        return tuple(sorted((name, types_of(field)) for name, field in value.items()))
    if isinstance(value, list):
        return frozenset(types_of(item) for item in value)
    return type(value).__name__
