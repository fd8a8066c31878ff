from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def arithmetic_kernel(x, y, sums, larger, exponentials, n: tl.constexpr):
    i = tl.arange(0, n)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(sums + i, a + b)
    tl.store(larger + i, (a > b).to(tl.int32))
    tl.store(exponentials + i, tl.exp2(a.to(tl.float32)).to(tl.bfloat16))


@triton.jit
def product_kernel(x, y, out, n: tl.constexpr):
    i = tl.arange(0, n)
    place = i[:, None] * n + i[None, :]
    tl.store(out + place, tl.dot(tl.load(x + place), tl.load(y + place)))


def test_arithmetic_is_that_of_torch():
    x, y = torch.randn(2, 64).bfloat16()
    sums, exponentials = torch.empty_like(x), torch.empty_like(x)
    larger = torch.empty(64, dtype=torch.int32)
    arithmetic_kernel[(1,)](x, y, sums, larger, exponentials, n=64)
    assert torch.equal(sums, x + y)
    assert torch.equal(larger, (x > y).int())
    torch.testing.assert_close(exponentials, x.exp2(), atol=0, rtol=2**-8)


def test_products_are_accumulated_in_float32():
    x, y = torch.randn(2, 32, 32).bfloat16()
    out = torch.empty(32, 32)
    product_kernel[(1,)](x, y, out, n=32)
    torch.testing.assert_close(out, x.float() @ y.float(), atol=1e-5, rtol=1e-5)
