"""The only reader and writer of YAML: configuration files of unknown origin, names and types checked."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reserve.errors import BadInput
from reserve.fs import check_regular_file, write_text_atomic

Section = TypeVar("Section")

_MOST_VALUES = 10_000
_EXPONENT = ("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
"""What a number such as 1e-3 looks like; PyYAML, which follows YAML 1.1, takes it for text."""


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The map a YAML file holds.

    Raises ValueError naming the file where it is none, gives a name twice in one map, or repeats itself through aliases
    to more than 10,000 values; OSError where unread.
    """
    import yaml

    try:
        check_regular_file(Path(path))
    except BadInput as error:
        raise ValueError(f"{path}: {error}") from error
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
    """YAML's safe loader, except that a name given twice is an error and 1e-3 is a number, as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for name in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if name in seen:
                    raise ValueError(f"{name!s:.80} is given twice in one map, which begins in {node.start_mark}")
                seen.add(name)
            return node

    Loader.add_implicit_resolver(*_EXPONENT)
    return Loader


@functools.cache
def _dumper() -> type:
    """YAML's safe dumper, which quotes text that `_loader` would take for a number."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_implicit_resolver(*_EXPONENT)
    return Dumper


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

    Lists stand for tuples, whole numbers for floats, maps for sections, text for paths. Raises ValueError, starting
    with `where`, for an unknown name, a value of the wrong type, or one that the dataclass refuses.
    """
    return section(**convert_section(section, values, where))


def convert_section(section: type, values: Any, where: str) -> dict[str, Any]:
    """Values for some of a config dataclass's fields, converted to their types. Raises as build_section does."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a map of names to values; got {type(values).__name__}")
    check_names(section, values, where)
    hints = get_type_hints(section)
    try:
        return {name: convert_value(value, hints[name], _at(where, name)) for name, value in values.items()}
    except OverflowError as error:
        raise ValueError(f"{where}: a number is too large ({error})") from error


def check_names(section: type, names: Iterable[Any], where: str) -> None:
    """Raises ValueError naming the first of `names` that `section` does not have, and what comes close to it."""
    known = [field.name for field in fields(section)]
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{_at(where, f'{name!s:.80}')} is not known.{hint} Allowed are {', '.join(sorted(known))}"
            )


def convert_value(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`: int, float, bool, str, Path, Literal, tuple, a config dataclass, or one of these or None.

    Raises ValueError starting with `where`.
    """
    if get_origin(kind) in (Union, UnionType):
        (inner,) = (option for option in get_args(kind) if option is not NoneType)
        return None if value is None else convert_value(value, inner, where)
    if is_dataclass(kind) and isinstance(kind, type):
        return build_section(kind, value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(map(repr, get_args(kind)))}; got {value!r:.80}")
        return value
    if get_origin(kind) is tuple:
        return _convert_tuple(value, get_args(kind), where)
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"{where} must be a path; got {value!r:.80}")
        return Path(value)
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted or value != value:
        name = "nothing" if type(value) is NoneType else f"{type(value).__name__} {value!r:.80}"
        raise ValueError(f"{where} must be {kind.__name__}; got {name}")
    return kind(value)


def _convert_tuple(value: Any, items: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    any_length = len(items) == 2 and items[1] is Ellipsis
    if not isinstance(value, list | tuple) or not (any_length or len(value) == len(items)):
        wanted = f"a list of {items[0].__name__.lower()}s" if any_length else f"a list of {len(items)}"
        raise ValueError(f"{where} must be {wanted}; got {value!r:.80}")
    kinds = items[:1] * len(value) if any_length else items
    return tuple(convert_value(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True)))


def _at(where: str, name: str) -> str:
    """The place of `name` in `where`: a section, or a file's name and a colon."""
    return f"{where} {name}" if where.endswith(":") else f"{where}.{name}"


def plain_values(value: Any) -> Any:
    """A setting as YAML can hold it: sections as maps, tuples as lists, paths absolute."""
    if is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain_values(item) for item in value]
    return os.path.abspath(value) if isinstance(value, Path) else value


def yaml_text(settings: Mapping[str, Any]) -> str:
    """Settings as YAML that `read_yaml` reads back."""
    import yaml

    return yaml.dump(dict(settings), Dumper=_dumper(), sort_keys=False)


def write_yaml(path: Path, settings: Mapping[str, Any]) -> None:
    """Writes settings that `read_yaml` reads back, whole or not at all."""
    write_text_atomic(path, yaml_text(settings))


RUN_CONFIG = "config.yaml"
"""Name of the configuration file in the folder of a run."""
PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def config_file(name: str | os.PathLike[str]) -> Path:
    """The file of a preset or the path `name`. Raises ValueError, naming the presets, where there is neither."""
    text = os.fspath(name)
    if text in preset_names():
        return PRESETS / f"{text}.yaml"
    if not Path(text).exists():
        near = get_close_matches(text, preset_names(), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"there is no configuration {text}.{hint} Presets are {', '.join(preset_names())}; anything else is "
            "the path of a YAML file"
        )
    return Path(text)


def read_settings(
    paths: Iterable[Path],
    sections: Mapping[str, type],
    inputs: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Configuration files, a later one overriding single settings of those before it.

    Returns the sections they mention, built, and values of `inputs`, names with their types. Settings that no file
    mentions are those of `defaults`, sections by name, or of the section's class. Raises ValueError naming the file and
    the setting that is unknown or wrong; OSError where a file cannot be read.
    """
    defaults = defaults or {}
    values: dict[str, dict[str, Any]] = {}
    others: dict[str, Any] = {}
    for path in paths:
        for name, value in read_yaml(path).items():
            if name in sections:
                converted = convert_section(sections[name], value, f"{path}: {name}")
                values[name] = values.get(name, {}) | converted
            elif name in inputs:
                others[name] = convert_value(value, inputs[name], f"{path}: {name}")
            else:
                raise ValueError(f"{path}: {unknown_section(str(name), sections)}")
    built = {
        name: replace(defaults[name], **section) if name in defaults else sections[name](**section)
        for name, section in values.items()
    }
    return built | others


def unknown_section(name: str, sections: Collection[str]) -> str:
    """What to say of a section that does not exist."""
    near = get_close_matches(name, sections, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"there is no section {name:.80}.{hint} There are {', '.join(sections)}"
