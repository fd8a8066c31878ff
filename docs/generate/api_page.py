"""docs/api.md: the public names of both packages, with signatures and docstrings as the source has them.

The sources are parsed, not imported, so that the page is the same under every version of Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from docstrings import inline, markdown
from links import anchor

MODULES = (
    "reserve_kernels",
    "reserve_kernels.log_mel.presets",
    "reserve_kernels.nn",
    "reserve_kernels.compat",
    "reserve_kernels.compat.open_clip",
    "reserve_kernels.compat.whisper",
    "reserve_kernels.compat.torchaudio",
    "reserve_kernels.compat.transformers",
    "reserve",
    "reserve.errors",
    "reserve.tasks",
    "reserve.tasks.task",
    "reserve.tasks.decay",
    "reserve.tasks.finetuning",
    "reserve.tasks.ask",
    "reserve.tasks.search",
    "reserve.tasks.zero_shot.task",
    "reserve.tasks.scores",
    "reserve.tasks.data_folder",
    "reserve.train.fit",
    "reserve.train.step",
    "reserve.train.parallel",
    "reserve.data.prepare.shards",
    "reserve.data.filters",
    "reserve.data.shards.read",
    "reserve.data.decode",
    "reserve.data.video",
    "reserve.batch.movable",
    "reserve.batch.inputs",
    "reserve.batch.streams",
    "reserve.batch.packing",
    "reserve.batch.coordinates",
    "reserve.batch.vocabulary",
    "reserve.model.pretrained",
    "reserve.model.finetuned",
    "reserve.checkpoint.official",
)
"""The modules shown, in this order."""

HEAD = """# API reference

Written by `make docs` from the docstrings; `make test` fails if it is out of date.

`reserve_kernels` and `reserve` export what users need. The other modules are those that contributors meet
([CONTRIBUTING.md](../CONTRIBUTING.md)). Names that begin with an underscore, and modules that are not listed, may
change at any time.
"""
_SHOWN_DECORATORS = ("dataclass", "property", "cached_property", "classmethod", "staticmethod", "abstractmethod")
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Source:
    """A parsed file."""

    module: str
    text: str
    tree: ast.Module

    def lines(self, start: int, end: int) -> str:
        return "\n".join(self.text.splitlines()[start - 1 : end])

    def definitions(self) -> dict[str, Definition]:
        """Top-level definitions by name, in the order of the file."""
        found: dict[str, Definition] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                found |= dict.fromkeys(_targets(node), node)
        return found


def page(root: Path) -> str:
    """The page's text, for the repository in `root`."""
    contents, parts = [], []
    shown: set[str] = set()
    sources = [read_source(root, module) for module in MODULES]
    public = [list(public_names(root, source)) for source in sources]
    every = {name for names in public for name, _ in names}
    for module, source, names in zip(MODULES, sources, public, strict=True):
        contents.append(f"- [{module}](#{anchor(module)}): {_linked(name for name, _ in names)}".rstrip(": "))
        parts += [f"## {module}", markdown(ast.get_docstring(source.tree))]
        above = [name for name, _ in names if name in shown]
        if above:
            parts.append(f"Described above: {_linked(above)}.")
        for name, home in names:
            parts += [] if name in above else _definition(name, home, every)
        shown.update(name for name, _ in names)
    return "\n\n".join(part.strip("\n") for part in (HEAD, "\n".join(contents), *parts) if part) + "\n"


def _linked(names: Iterable[str]) -> str:
    return ", ".join(f"[`{name}`](#{anchor(name)})" for name in names)


def read_source(root: Path, module: str) -> Source:
    """The source of a module of `reserve` or `reserve_kernels`. Raises ValueError where it has none."""
    path = root.joinpath(*("kernels" if part == "reserve_kernels" else part for part in module.split(".")))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            text = file.read_text("utf-8")
            return Source(module, text, ast.parse(text))
    raise ValueError(f"there is no module {module} in {root}")


def public_names(root: Path, source: Source) -> Iterator[tuple[str, Source]]:
    """Public names, each with the source that defines it: those of `__all__`, or else all that are defined here."""
    own = source.definitions()
    listed = own.get("__all__")
    if listed is None:
        yield from ((name, source) for name, node in own.items() if _is_shown(name, node, source))
        return
    assert isinstance(listed, ast.Assign)
    for name in ast.literal_eval(listed.value):
        home = source
        while name not in home.definitions():
            imports = _imports(home)
            if name not in imports:
                raise ValueError(f"{source.module} exports {name}, but {home.module} neither defines nor imports it")
            home = read_source(root, imports[name])
        yield name, home


def _imports(source: Source) -> dict[str, str]:
    """The module that each name is imported from."""
    nodes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in nodes if node.module for alias in node.names}


def _is_shown(name: str, node: Definition, source: Source) -> bool:
    """Functions and classes are public by name; a constant only if a docstring explains it."""
    return not name.startswith("_") and (
        isinstance(node, ast.FunctionDef | ast.ClassDef) or _string_below(source.tree.body, node) is not None
    )


def _definition(name: str, source: Source, every: set[str]) -> Iterator[str]:
    node = source.definitions()[name]
    yield f"### {name}"
    if isinstance(node, ast.ClassDef):
        yield from _class(node, source)
        bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
        if linked := _linked(base for base in bases if base in every):
            yield f"Inherits from {linked}."
    elif isinstance(node, ast.FunctionDef):
        yield from _function(node, source)
    else:
        yield _code(source.lines(node.lineno, node.end_lineno or node.lineno))
        yield markdown(_string_below(source.tree.body, node))


def _function(node: ast.FunctionDef, source: Source) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        raise ValueError(f"{source.module}.{node.name}, line {node.lineno}, is public and has no docstring")
    yield _code(_header(node, source))
    yield markdown(ast.get_docstring(node))


def _class(node: ast.ClassDef, source: Source) -> Iterator[str]:
    """The class with its fields and __init__ as one block, what they mean, then its methods."""
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and not _is_private(part)]
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    init = [part for part in methods if part.name == "__init__"]
    parts = [source.lines(part.lineno, part.end_lineno or part.lineno) for part in fields]
    parts += [f"\n{_header(part, source)}" if fields else _header(part, source) for part in init]
    yield _code("\n".join([_header(node, source), *parts]))
    yield markdown(ast.get_docstring(node))
    for part in init:
        yield markdown(ast.get_docstring(part))
    notes = [(ast.unparse(part.target), _string_below(node.body, part)) for part in fields]
    yield "\n".join(f"- `{field}`: {inline(note)}" for field, note in notes if note)
    for part in methods:
        # An override without a docstring does what the base class says.
        overrides = bool(node.bases) and ast.get_docstring(part) is None
        if not part.name.startswith("_") and not overrides:
            yield f"#### {node.name}.{part.name}"
            yield from _function(part, source)


def _header(node: ast.FunctionDef | ast.ClassDef, source: Source) -> str:
    """Signature as it is written, under the decorators that callers need to know."""
    decorators = [
        source.lines(part.lineno, part.end_lineno or part.lineno)
        for part in node.decorator_list
        if ast.unparse(part).partition("(")[0] in _SHOWN_DECORATORS
    ]
    body = node.body[0]
    body_line = min([body.lineno, *(part.lineno for part in getattr(body, "decorator_list", []))])
    signature = source.lines(node.lineno, body_line - 1)
    beside = source.lines(body_line, body_line).encode()[: body.col_offset].decode()
    return "\n".join([*decorators, f"{signature}\n{beside}".strip("\n").rstrip()])


def _string_below(body: list[ast.stmt], node: ast.stmt) -> str | None:
    """The docstring of a field or constant: the string that follows it."""
    following = body[body.index(node) + 1 :][:1]
    for statement in following:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return str(statement.value.value)
    return None


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_private(node: ast.AnnAssign) -> bool:
    return ast.unparse(node.target).startswith("_")


def _code(text: str) -> str:
    lines = text.splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(["```python", *(line[margin:] for line in lines), "```"])
