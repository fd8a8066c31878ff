#!/bin/sh
# What `make wheel-container` runs in the container, which has no network: the wheel and torch in an empty environment.
set -eu
for tool in cc c++ gcc g++ clang cmake nvcc; do
  if command -v "$tool" >/dev/null; then
    echo "the container has $tool; use an image without compilers"
    exit 1
  fi
done
python3 -m venv /tmp/venv
/tmp/venv/bin/python -m pip install --quiet --no-index --find-links /packages torch numpy
/tmp/venv/bin/python -m pip install --quiet --no-index --find-links /packages merlot-reserve
cd /tmp
/tmp/venv/bin/python /packages/every_op.py
/tmp/venv/bin/python -m reserve_kernels.bench --quick
