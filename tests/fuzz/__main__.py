"""Fuzzes the readers of transcripts, then of containers, then of shards: python -m tests.fuzz SECONDS SEED."""

from __future__ import annotations

import sys

from tests.fuzz import containers, shards, transcripts


def main() -> None:
    """Runs each for the seconds of the first argument, from the seed of the second."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    print(f"{transcripts.fuzz(seconds, seed)} damaged transcripts", flush=True)
    print(f"{containers.fuzz(seconds, seed)} damaged videos", flush=True)
    print(f"{shards.fuzz(seconds, seed)} damaged sets of shards", flush=True)


if __name__ == "__main__":
    main()
