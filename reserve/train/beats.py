"""What a rank tells the others of itself, and whether the process of a rank on this machine still runs."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process, known to every host.

    `machine` tells apart what can see each other's processes: a boot of a kernel and a namespace of process ids. It is
    empty, and `started` 0, where there is no /proc. `started` is in clock ticks since the boot, as in /proc/PID/stat.
    """

    host: str
    pid: int
    machine: str = ""
    started: int = 0

    @classmethod
    def this(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _machine(), _started(pid) or 0)

    def is_gone(self) -> bool:
        """Whether it has ended, as far as this process can see: False for one of another machine.

        Another process may have its id by now, which is told by the time of its start.
        """
        if not self.machine or self.machine != _machine():
            return False
        return _started(self.pid) != self.started


@dataclass(frozen=True)
class Beat:
    """A heartbeat: where a rank is.

    `tick` counts the heartbeats, so it stops when the process does. (`step`, `count`) grows with the progress of the
    main thread: `count` is the number of phases since the step began. `left` marks a rank that has reported why it
    ends, whose silence is no news.
    """

    rank: int
    process: Process
    tick: int = 0
    step: int = 0
    count: int = 0
    phase: str = "joining"
    patient: bool = False
    left: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """How far the main thread is. All ranks go through the same phases."""
        return self.step, self.count

    @property
    def name(self) -> str:
        """The rank and its process, for messages."""
        return f"rank {self.rank} ({self.process.host}, pid {self.process.pid})"

    @property
    def where(self) -> str:
        """What the main thread does, for messages."""
        return f"{self.phase} at step {self.step}"

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> Beat:
        values = json.loads(text)
        return cls(**values | {"process": Process(**values["process"])})


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process started, None if it has ended. A process that nobody has waited for has ended too."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
