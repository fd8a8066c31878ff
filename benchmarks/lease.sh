#!/usr/bin/env bash
# What to run on a GPU machine that is at hand for minutes. FOLDER receives summary.txt and results.tar.gz, replaced
# after each part, so that a kill at any time costs at most the part that runs. Without the repository's history,
# RESERVE_COMMIT names the commit.
#
#   bash benchmarks/lease.sh --out FOLDER [--seconds TOTAL] [PART ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m benchmarks.gpu --seconds 480 "$@"
