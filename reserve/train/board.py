"""Where ranks post their heartbeats: the store through which their process group was joined."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta

import torch.distributed as dist

from reserve.train.beats import Beat
from reserve.train.distributed import start_name
from reserve.train.judge import Verdict


@dataclass
class Board:
    """This rank's connection to the run's TCPStore, one of its own.

    Its keys name the start of the run, so that ranks that torchrun starts again read nothing of those before. A method
    may block for longer than `timeout`, since PyTorch's client can wait for ever for a store that is stopped: use it in
    a thread that nothing waits for.
    """

    rank: int
    world_size: int
    host: str
    port: int
    prefix: str
    timeout: float
    hosted_by_launcher: bool
    _store: dist.TCPStore | None = field(default=None, init=False)
    _complete: bool = field(default=False, init=False)

    @classmethod
    def from_environment(cls, rank: int, world_size: int, timeout: float) -> Board:
        """The store of the ranks' environment, that of torchrun or of the first rank; `timeout` in seconds."""
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(
                f"WORLD_SIZE is {world_size}, but {' and '.join(missing)} are not set: start with torchrun"
            )
        return cls(
            rank,
            world_size,
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            f"reserve-watch/{os.environ.get('TORCHELASTIC_RUN_ID', '0')}/{start_name()}",
            timeout,
            os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )

    @property
    def is_host(self) -> bool:
        """Whether the store ends with this process."""
        return self.rank == 0 and not self.hosted_by_launcher

    def describe(self, first: Beat | None) -> str:
        """The store and who hosts it, for messages. `first` is a heartbeat of the first rank, if there was one."""
        host = "torchrun" if self.hosted_by_launcher else first.name if first else "rank 0"
        return f"{host}, which hosts the store at {self.host}:{self.port}"

    def connect(self) -> None:
        """Connects, if it is not connected. Raises ConnectionRefusedError where nothing listens, other OSError or
        DistError where there is no way."""
        if self._store is not None:
            return
        # PyTorch's client tries again until its timeout, with warnings; the ranks may start long before the store.
        socket.create_connection((self.host, self.port), self.timeout).close()
        limit = timedelta(seconds=self.timeout)
        self._store = dist.TCPStore(self.host, self.port, is_master=False, wait_for_workers=False, timeout=limit)
        self._store.compare_set(f"{self.prefix}/verdict", "", "-")

    def disconnect(self) -> None:
        """Forgets a connection that failed."""
        self._store = None

    def post(self, beat: Beat) -> None:
        """Posts this rank's heartbeat."""
        assert self._store is not None
        self._store.set(f"{self.prefix}/{self.rank}", beat.to_text())

    def beats(self) -> dict[int, Beat]:
        """The last heartbeat of each rank that has posted one."""
        assert self._store is not None
        keys = [f"{self.prefix}/{rank}" for rank in range(self.world_size)]
        # Reading a key that is missing would wait for it.
        self._complete = self._complete or self._store.check(keys)
        known = keys if self._complete else [key for key in keys if self._store.check([key])]
        return {beat.rank: beat for beat in map(Beat.from_text, self._store.multi_get(known))} if known else {}

    def agree(self, verdict: Verdict | None) -> Verdict | None:
        """The first verdict that a rank has posted; `verdict` becomes it if there is none yet."""
        assert self._store is not None
        key = f"{self.prefix}/verdict"
        text = self._store.compare_set(key, "-", verdict.to_text()) if verdict else self._store.get(key)
        return None if text == b"-" else Verdict.from_text(text)
