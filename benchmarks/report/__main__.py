"""`python -m benchmarks.report` writes the tables and plots; `--check` fails if they are out of date."""

from __future__ import annotations

import argparse
import sys

from benchmarks.report.pages import stale, write


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if something is stale")
    if parser.parse_args(arguments).check:
        wrong = stale()
        print(*(f"stale: {name}" for name in wrong), sep="\n")
        return int(bool(wrong))
    print(*(f"wrote {name}" for name in write()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
