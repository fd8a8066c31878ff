"""What a back end of contrastive_loss says that it stores, against what it stores."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels.contrastive import availability


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(1, 1), (37, 11), (11, 37), (512, 512), (1000, 3), (3, 1000), (640, 4000)])
def test_what_triton_stores_is_counted(dtype, sizes):
    triton = pytest.importorskip("reserve_kernels.contrastive.triton", exc_type=ImportError)
    x, y = (torch.empty(rows, 8, dtype=dtype) for rows in sizes)
    stored, counted = triton.stored_memory(x, y).nbytes, availability.triton_stored_bytes(x, y)
    assert stored <= counted <= 1.15 * stored  # on a GPU its tiles are larger, and have fewer logsumexps
