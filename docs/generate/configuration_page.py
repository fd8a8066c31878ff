"""docs/configuration.md: every setting, from the dataclasses of reserve.config and what they accept."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from reserve.cli.finetune import TASKS
from reserve.config import SECTIONS, Config, FilterConfig, FinetunedConfig, ModelConfig, OptimizerConfig
from reserve.config.load import PRESETS, preset_names, read_settings
from reserve.tasks import find_task
from reserve.tasks.finetuning import BATCH_SIZE, finetuning_optimizer

HEAD = """# Configuration

Written by `make docs` from [reserve/config](../reserve/config); `make test` fails if it is out of date.

A configuration is a YAML file of four sections. `--config` names a preset or a file, and `--SECTION.KEY VALUE` after it
overrides one setting:

```sh
reserve pretrain --config base --videos my_videos/ --out runs/mine --train.batch_size 64
```

Settings that a file leaves out have the defaults below. A file of your own holds only what differs:

```yaml
model:
  hidden_size: 1024
train:
  batch_size: 256
```

An unknown name, a wrong type and a value that is not allowed are errors that name the setting. "Allowed" quotes these
errors, with the other settings at their defaults. Names of `data`, `model` and `optimizer` are those of the release's
YAML. How to choose: [training.md](training.md).

A run's `config.yaml` also holds the name of its task under `task`, and the task's inputs; for `pretrain` these are
`videos` or `shards` and `shard_weights`, `held_out` or `held_out_shards`, `random_text` and `tokenizer`.
"""
FILTER = """`reserve prepare` takes the sections `data` and `filter` of its `--config`, and ignores the others. No other
command takes `filter`."""
_PROBES = (-1, 0, 2, 1.5, 0.75, math.inf, 2**63)
"""Values offered to each setting, beside its neighbours and its double, to learn what is refused and why."""


def page() -> str:
    """The page's text. Raises ValueError for a setting without a docstring."""
    contents = [f"- [{name}](#{name})" for name in SECTIONS]
    contents += ["- [Presets](#presets)", "- [Finetuning](#finetuning)", "- [filter](#filter)"]
    sections = (_section(name, kind) for name, kind in SECTIONS.items())
    preparation = [_section("filter", FilterConfig), FILTER]
    parts = [HEAD, "\n".join(contents), *sections, _presets(), _finetuning(), *preparation]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(name: str, kind: type) -> str:
    meanings, hints = _meanings(kind), get_type_hints(kind)
    rows = [f"## {name}", "", inspect.getdoc(kind) or "", ""]
    rows += ["| setting | type | default | meaning | allowed |", "| --- | --- | --- | --- | --- |"]
    for field in fields(kind):
        allowed = "; ".join(allowed_values(name, field.name))
        cells = (f"`{field.name}`", _kind(hints[field.name]), _value(field.default), meanings[field.name], allowed)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _meanings(kind: type) -> dict[str, str]:
    """What each field of a class means. Raises ValueError for one without a docstring."""
    meanings = {name: text for base in reversed(kind.__mro__[:-1]) for name, text in attribute_docstrings(base).items()}
    for field in fields(kind):
        if field.name not in meanings:
            raise ValueError(f"{kind.__name__}.{field.name} has no docstring that says what it means")
    return meanings


def attribute_docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a class, on one line."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def allowed_values(section: str, name: str) -> list[str]:
    """What the errors for bad values of a setting say is allowed, each once.

    An error about another setting counts where it names this one and does not depend on the bad value.
    """
    default = getattr(_defaults(section), name)
    if isinstance(default, bool | str):
        return []
    place = f"{section}.{name}"
    errors = Counter(error for value in _bad_values(default) if (error := _refusal(section, name, value)))
    rules: dict[str, None] = {}
    for error, times in errors.items():
        if error.startswith(f"{place} must "):
            rules[error.removeprefix(f"{place} must ").removeprefix("be ")] = None
        elif re.search(rf"\b{name}\b", error) and times > 1:
            rules[error] = None
    return list(rules)


def _defaults(section: str) -> Any:
    return FilterConfig() if section == "filter" else getattr(Config(), section)


def _bad_values(default: Any) -> list[Any]:
    if default is None:
        return [-1]
    if isinstance(default, str):
        return [""]
    if isinstance(default, tuple):
        return [(value, *default[1:]) for value in _bad_values(default[0] if default else "")]
    values = (*_PROBES, default - 1, default + 1, 2 * default)
    if isinstance(default, float):
        return [float(value) for value in values]
    return [value for value in values if isinstance(value, int)]


def _refusal(section: str, name: str, value: Any) -> str | None:
    """The rule that `value` breaks, without the value it got and that of another setting; None where it is allowed."""
    try:
        changed = replace(_defaults(section), **{name: value})
        if section in SECTIONS:
            replace(Config(), **{section: changed})
    except ArithmeticError:
        return None
    except ValueError as error:
        return re.sub(r"(?<=\.)(\w+) \d+$", r"\1", str(error).rpartition("; got ")[0])
    return None


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple and get_args(hint)[1] is Ellipsis:
        return f"list of {_kind(get_args(hint)[0])}"
    if get_origin(hint) is tuple:
        return f"list of {len(get_args(hint))}, {_kind(get_args(hint)[0])}"
    if get_origin(hint) is UnionType:
        return ", ".join(_kind(kind) for kind in get_args(hint))
    names = {
        int: "whole number",
        float: "number",
        bool: "`true`, `false`",
        str: "text",
        Path: "path",
        NoneType: "`null`",
    }
    return names[hint]


def _value(value: Any) -> str:
    """As YAML writes it."""
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{yaml.safe_dump(plain, default_flow_style=True).splitlines()[0]}`"


def _finetuning() -> str:
    """What `reserve finetune` changes and adds: defaults, the head's settings, and the sections of each task."""
    tasks: list[Any] = [find_task(name) for name in TASKS]
    text = (
        "`reserve finetune TASK` has the sections `model`, `optimizer` and `train` too. Their defaults differ as the\n"
        "first table says; the numbers of steps follow from `--epochs`. The other sections are a task's own."
    )
    rows = ["## Finetuning", "", text, "", f"| setting | {' | '.join(TASKS)} |", "| --- " * (1 + len(TASKS)) + "|"]
    rows.append(f"| `--epochs` | {' | '.join(f'`{task.epochs}`' for task in tasks)} |")
    optimizers = [finetuning_optimizer(task.learning_rate) for task in tasks]
    for field in fields(OptimizerConfig):
        values = [getattr(optimizer, field.name) for optimizer in optimizers]
        if any(value != field.default for value in values):
            rows.append(f"| `optimizer.{field.name}` | {' | '.join(map(_value, values))} |")
    rows.append(f"| `train.batch_size` | {' | '.join([f'`{BATCH_SIZE}`'] * len(tasks))} |")
    hearing = [_value(task.model_config(ModelConfig()).with_audio) for task in tasks]
    rows.append(f"| `model.with_audio` | {' | '.join(hearing)} |")
    added: dict[str, type[Any]] = {"model, of every task": FinetunedConfig}
    for task in tasks:
        added |= {f"{name}, of {task.name}": kind for name, kind in task.sections().items() if name != "model"}
    for title, kind in added.items():
        own = [field for field in fields(kind) if field.name not in ModelConfig.__dataclass_fields__]
        hints, meanings = get_type_hints(kind), _meanings(kind)
        rows += ["", f"### {title}", "", inspect.getdoc(kind) or "", ""]
        rows += ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
        for field in own:
            cells = (f"`{field.name}`", _kind(hints[field.name]), _value(field.default), meanings[field.name])
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _presets() -> str:
    """A table of every setting that a preset changes."""
    names = preset_names()
    settings = {name: read_settings([PRESETS / f"{name}.yaml"], SECTIONS, {}) for name in names}
    rows = [f"| setting | default | {' | '.join(names)} |", "| --- " * (2 + len(names)) + "|"]
    for section, kind in SECTIONS.items():
        for field in fields(kind):
            values = [getattr(settings[name].get(section, kind()), field.name) for name in names]
            if any(value != field.default for value in values):
                cells = ["" if value == field.default else _value(value) for value in values]
                rows.append(f"| `{section}.{field.name}` | {_value(field.default)} | {' | '.join(cells)} |")
    text = (
        "What each preset changes; an empty cell is the default. `base` and `large` are the released models'\n"
        "configurations, those in `_resadapt` their variants for larger pictures, and `tiny` is the demo's."
    )
    return "\n".join(["## Presets", "", text, "", *rows])
