"""Configuration from files of unknown origin: names and types checked, each complaint naming both."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Section = TypeVar("Section")

_MOST_VALUES = 10_000


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The map a YAML file holds.

    Raises ValueError naming the file where it is none, gives a name twice in one map, or repeats itself through aliases
    to more than 10,000 values; OSError where unread.
    """
    import yaml

    try:
        settings = yaml.load(Path(path).read_text("utf-8"), _loader())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold sections; got {type(settings).__name__}")
    if not _is_small(settings):
        raise ValueError(f"{path} must hold at most {_MOST_VALUES} values; its aliases make them more")
    return settings


@functools.cache
def _loader() -> type:
    """YAML's safe loader, which by itself takes the last of the values that a name is given twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for name in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if name in seen:
                    raise ValueError(f"{name!s:.80} is there twice in one map, which begins in {node.start_mark}")
                seen.add(name)
            return node

    return Loader


def _is_small(settings: dict[str, Any]) -> bool:
    """Whether the values written out are few: aliases can stand for more than any memory holds, or for themselves."""
    count, left = 0, [settings]
    while left and count <= _MOST_VALUES:
        value: Any = left.pop()
        count += 1
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    return count <= _MOST_VALUES


def build_section(section: type[Section], values: Any, where: str) -> Section:
    """A config dataclass with the given values, the rest at their defaults.

    Lists stand for tuples, whole numbers for floats. Raises ValueError, starting with `where`, for an unknown name, a
    value of the wrong type, or one that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a map of names to values; got {type(values).__name__}")
    kinds = {f.name: get_type_hints(section)[f.name] for f in fields(section)}  # type: ignore[arg-type]
    unknown = [name for name in values if name not in kinds]
    if unknown:
        raise ValueError(f"{where}.{unknown[0]!s:.80} is not known; allowed are {', '.join(sorted(kinds))}")
    try:
        return section(**{name: convert_value(value, kinds[name], f"{where}.{name}") for name, value in values.items()})
    except OverflowError as error:
        raise ValueError(f"{where}: a number is too large ({error})") from error


def convert_value(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`: int, float, bool, str, a Literal or a tuple of fixed length. Raises ValueError."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(map(repr, get_args(kind)))}; got {value!r:.80}")
        return value
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, list | tuple) or len(value) != len(items):
            raise ValueError(f"{where} must be a list of {len(items)}; got {value!r:.80}")
        return tuple(convert_value(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, items, strict=True)))
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted or value != value:
        name = "nothing" if type(value) is NoneType else f"{type(value).__name__} {value!r:.80}"
        raise ValueError(f"{where} must be {kind.__name__}; got {name}")
    return kind(value)
