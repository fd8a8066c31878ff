"""Tests of Triton kernels whose values are computed by Triton's interpreter, on the CPU.

Kernels are interpreted when TRITON_INTERPRET is set before they are defined, and then cannot be compiled: so these
files are collected only in a process of their own, which tests/kernels/test_interpreted.py starts for each. By hand:

    TRITON_INTERPRET=1 pytest tests/kernels/interpreted

The interpreter takes about 4 ms for an inner tile: keep sequences at 160 tokens or so.
"""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    import torch

    from tests.kernels import interpreter_bf16

    interpreter_bf16.install()
    torch.set_num_threads(1)
else:
    collect_ignore_glob = ["test_*.py"]
