"""What the documents show runs, and where they point to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reserve_kernels.registry import OPS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(name: str) -> list[str]:
    """The Python examples of a page that stand on their own."""
    found = re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [block for block in found if "from_pretrained" not in block]


EXAMPLES = [(name, code) for name in ("README.md", "docs/ops.md") for code in blocks(name)]


def test_there_are_examples_of_every_op():
    text = "".join(code for name, code in EXAMPLES if name == "docs/ops.md")
    for name in [*(op.name for op in OPS), "backends"]:
        assert f"{name}(" in text


@pytest.mark.parametrize("code", [code for _, code in EXAMPLES], ids=[f"{n} {i}" for i, (n, _) in enumerate(EXAMPLES)])
def test_example_runs(code):
    exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    inside = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "sounds_and_words.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_training_loop_learns():
    done = run_example("--steps", "60")
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"right one of 36 descriptions: (\d+)%", done.stdout)
    assert accuracy is not None
    assert int(accuracy.group(1)) >= 30  # by chance 3
