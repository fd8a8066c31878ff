"""Runs the commands of a part: each ends within its time limit and keeps what it has written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import ROOT, Command

GRACE_SECONDS = 10
"""Time for a command to store its results after it is interrupted."""


def run_part(name: str, commands: list[Command], seconds: float, out: Path) -> Iterator[dict[str, Any]]:
    """Runs a part's commands one after another and yields the summary entry of each.

    Time that a command leaves goes to the next ones. All of them end within `seconds`.
    """
    end, remaining = time.monotonic() + seconds, list(commands)
    log = out / f"{name}.log"
    log.write_text("")
    while remaining:
        share = remaining[0].share / sum(command.share for command in remaining)
        command, left = remaining.pop(0), end - GRACE_SECONDS - time.monotonic()
        if left < 1:
            yield entry(command.name, "skipped: the part's time is over")
            continue
        yield run(command, share * left, log)


def entry(name: str, status: str, seconds: float = 0.0, last_line: str = "") -> dict[str, Any]:
    """A line of the summary."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"part": name, "status": status, "seconds": round(seconds, 1), "last_line": last_line, "date": date}


def run(command: Command, seconds: float, log: Path) -> dict[str, Any]:
    """Runs one command and appends its output to `log`. At its limit it is interrupted, then killed."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.extra}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(import_folder()), str(ROOT), os.environ.get("PYTHONPATH")])
    )
    before = log.stat().st_size if log.exists() else 0
    start = time.monotonic()
    print(f"{command.name}: {' '.join(command.command)[:300]}", flush=True)
    with log.open("a", encoding="utf-8") as written:
        try:
            process = subprocess.Popen(
                command.command,
                cwd=ROOT,
                env=environment,
                stdout=written,
                stderr=subprocess.STDOUT,
                # A group that can be ended as a whole, in the session that ends with the caller.
                process_group=0,
                preexec_fn=_accept_interrupts,
            )
        except OSError as error:
            written.write(f"{error}\n")
            status = f"not run: {error}"
        else:
            status = _wait(process, seconds)
    output = log.read_bytes()[before:].decode("utf-8", errors="replace")
    lines = [line for line in output.splitlines() if line.strip()]
    return entry(command.name, status, time.monotonic() - start, lines[-1] if lines else "")


def _accept_interrupts() -> None:
    """Undoes, in the child, that nohup, a shell's background job or a CI runner starts programs with SIGINT ignored.

    A child that ignored it would be killed at its limit without what it had measured.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Waits for the process up to its limit, then ends it and everything that it has started."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        return f"stopped at its limit of {seconds:.0f} s"
    finally:
        # Its children would otherwise run beside the next command.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "ok" if code == 0 else f"failed with status {code}"


def import_folder() -> Path:
    """A folder from which `reserve_kernels` imports this checkout's ops: a GPU machine has nothing installed."""
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "reserve_kernels"
    with suppress(FileExistsError):  # another process may have made it meanwhile
        link.symlink_to(Path("..") / ".." / "kernels")
    return folder
