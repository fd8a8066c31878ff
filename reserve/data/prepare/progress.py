"""Shows the progress of a preparation: a bar on a terminal, and a line for each skipped file and each warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reserve.data.prepare.results import FileResult
from reserve.terminal import printable


@contextmanager
def preparation_progress() -> Iterator[Callable[[FileResult, int], None]]:
    """Yields a function to call with each result and the total number of files.

    Prints to stderr: a bar if it is a terminal, a line for each skipped file and each warning, and a final summary.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    counts = {"prepared": 0, "unchanged": 0, "skipped": 0}
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("preparing videos", total=None)

        def show(result: FileResult, total: int) -> None:
            counts[result.status] += 1
            progress.update(bar, total=total, advance=1)
            lines = [f"skipped {result.path}: {result.reason}"] if result.status == "skipped" else []
            lines += [f"{result.path}: {warning}" for warning in result.warnings]
            for line in lines:
                console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

        yield show
    summary = ", ".join(f"{n} {status}" for status, n in counts.items())
    console.print(f"videos: {summary}", markup=False, highlight=False)
