"""Writes docs/parity.md, the figures of the comparison with the reference and their bounds. `make parity` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.parity.figures import Figure
from tests.parity.golden import Golden
from tests.parity.groups import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "parity.md"
HEADER = ("group", "compared", "measure", "reached", "bound")

INTRODUCTION = """# Parity with the reference

Every figure below compares this project with numbers recorded from the released code: the same weights, inputs and
random choices, in float32 on a CPU. `make parity` measures them and writes this page; `make test` holds each to its
bound wherever the recordings are.

A relative error is |ours − theirs| / |theirs| in the Euclidean norm. The gradients of the pooling's key biases are
zero but for rounding, so they are held to a magnitude. The means of the masking are over 400 draws of an example on
each side, and their distance is in standard errors of the difference. A few bits of the stored moments are more than
one step off, and about as many stay so with gradients computed in float64: there the recording's own rounding shows.
What the embeddings are held to is not a recording but the padded, masked restatement of the model in
`tests/helpers/plain_model.py`, in float64; the tests in `tests/model` hold the rest of the model to it too.
"""


def measure_all(golden: Golden) -> dict[str, list[Figure]]:
    return {name: measure(golden) for name, measure in GROUPS.items()}


def write_page(figures: dict[str, list[Figure]], version: str) -> str:
    """The page as Markdown: the worst figure of each group and measure, then all figures."""
    lines = [INTRODUCTION, f"Measured with PyTorch {version}.", "", "## The worst of each kind", ""]
    lines += _table(["group", "measure", "figures", "worst", "bound", "where"])
    for group, members in figures.items():
        for measure in dict.fromkeys(f.measure for f in members):
            alike = [f for f in members if f.measure == measure]
            for bound in dict.fromkeys((f.bound, f.at_least) for f in alike):
                same = [f for f in alike if (f.bound, f.at_least) == bound]
                worst = (min if bound[1] else max)(same, key=lambda f: f.value)
                lines.append(_row([group, measure, str(len(same)), _number(worst), _bound(worst), worst.what]))
    lines += ["", "## Every figure", ""]
    for group, members in figures.items():
        lines += ["<details>", f"<summary>{group}: {len(members)}</summary>", ""]
        lines += _table(list(HEADER[1:]))
        lines += [_row([f.what, f.measure, _number(f), _bound(f)]) for f in members]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def read_page(text: str) -> dict[str, list[tuple[str, str, str]]]:
    """The rows of each group on a page, as (compared, measure, bound)."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for part in text.split("<summary>")[1:]:
        name = part.split("</summary>")[0].rsplit(":", 1)[0]
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
        groups[name] = [(what.strip("`"), measure, bound) for what, measure, _, bound in rows[2:]]
    return groups


def row_keys(figures: dict[str, list[Figure]]) -> dict[str, list[tuple[str, str, str]]]:
    """The result of `read_page` for a page of these figures."""
    return {group: [(f.what, f.measure, _bound(f)) for f in members] for group, members in figures.items()}


def _table(columns: list[str]) -> list[str]:
    return [_row(columns), _row(["---"] * len(columns))]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(figure: Figure) -> str:
    return f"{figure.value:.4f}" if figure.at_least else f"{figure.value:.2g}"


def _bound(figure: Figure) -> str:
    return f"{'≥' if figure.at_least else '≤'} {figure.bound:g}"


def main() -> None:
    folder = ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        sys.exit(f"{folder} does not exist: there is nothing to compare with")
    torch.set_num_threads(1)
    figures = measure_all(Golden(folder))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(write_page(figures, torch.__version__.split("+")[0]), "utf-8")
    broken = [f"{group}: {f.what}: {f.value:.3g}" for group, members in figures.items() for f in members if not f.holds]
    print(f"{sum(map(len, figures.values()))} figures in {PAGE.relative_to(ROOT)}, {len(broken)} beyond their bound")
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
