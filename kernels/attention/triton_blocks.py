"""Shared by the attention kernels: reading rows, the rotary position, scores.

For long sequences place_kernel applies the position once, before the kernels. For short ones a program reads each query
and key once anyway, and applies it there: it splits their 64 numbers into two halves of 32, one that rotates and one
that passes through, and scores are the sum of two products. Then only half of a tile goes through registers on its way
to the tensor cores.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROTARY = {None: 0, "reserve": 1, "standard": 2}
"""Values of the kernels' constant ROTARY."""

UNSPECIALIZED = ["heads", "sequences", "blocks", "group", "tokens"]
"""Arguments that change between calls; Triton must not specialise kernels for their values."""
UNALIGNED = ["cu_seqlens", "segment_ids"]
"""Pointers read one number at a time; Triton must not specialise kernels for their alignment."""


@triton.jit
def load_half(base, rows, valid, stride):
    """32 numbers of each row; zeros where a row is not valid."""
    return tl.load(base + rows[:, None] * stride + tl.arange(0, 32)[None, :], mask=valid[:, None], other=0.0)


@triton.jit
def load_rows(base, rows, valid, stride, MASKED: tl.constexpr, D: tl.constexpr = 64, W: tl.constexpr = 64):
    """The D numbers of each row, in a tile that is W wide; zeros beyond them and where a row is not valid."""
    if D < W:
        i = tl.arange(0, W)[None, :]
        place = base + rows[:, None] * stride + i
        mask = (valid[:, None] & (i < D)) if MASKED else (i < D)
        return tl.load(place, mask=mask, other=0.0)
    place = base + rows[:, None] * stride + tl.arange(0, W)[None, :]
    return tl.load(place, mask=valid[:, None], other=0.0) if MASKED else tl.load(place)


@triton.jit
def rotate(x, table, rows, valid, ROTARY: tl.constexpr, TRANSPOSE: tl.constexpr):
    """The position applied to x [rows, 32], in float32; `table` is what rotary_table_kernel wrote."""
    x = x.to(tl.float32)
    if ROTARY == 1:
        return x * load_half(table, rows, valid, 32)
    if ROTARY == 2:
        place = table + rows[:, None] * 32 + tl.arange(0, 16)[None, :]
        cos = tl.load(place, mask=valid[:, None], other=0.0)
        sin = tl.load(place + 16, mask=valid[:, None], other=0.0)
        sin = -sin if TRANSPOSE else sin
        even, odd = tl.split(tl.reshape(x, (x.shape[0], 16, 2)))
        return tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), (x.shape[0], 32))
    return x


@triton.jit
def load_rotated(base, table, rows, valid, heads, ROTARY: tl.constexpr):
    """The rotated and the other half of queries or keys of one head, in their dtype.

    `base` is theirs in qkv, `table` what rotary_table_kernel wrote.
    """
    half = load_half(base, rows, valid, heads * 192)
    if ROTARY != 0:
        half = rotate(half, table, rows, valid, ROTARY, False).to(half.dtype)
    return half, load_half(base + 32, rows, valid, heads * 192)


@triton.jit
def apply_position(
    x, table, rows, valid, ROTARY: tl.constexpr, TRANSPOSE: tl.constexpr, R: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """The position applied to float32 x [rows, W], of which the first 2 R dimensions rotate."""
    if ROTARY == 1:
        i = tl.arange(0, W)[None, :]
        x *= tl.load(table + rows[:, None] * (2 * R) + i, mask=valid[:, None] & (i < 2 * R), other=1.0)
    if ROTARY == 2:
        i = tl.arange(0, W // 2)[None, :]
        factors = table + rows[:, None] * (2 * R) + i
        cos = tl.load(factors, mask=valid[:, None] & (i < R), other=1.0)
        sin = tl.load(factors + R, mask=valid[:, None] & (i < R), other=0.0)
        sin = -sin if TRANSPOSE else sin
        even, odd = tl.split(tl.reshape(x, (x.shape[0], W // 2, 2)))
        x = tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), (x.shape[0], W))
    return x


@triton.jit
def scores(a_rotated, a_other, b_rotated, b_other):
    """a b^T from halves: [m, 32] twice and [n, 32] twice -> float32 [m, n]."""
    s = tl.dot(a_rotated, tl.trans(b_rotated), input_precision="ieee")
    return tl.dot(a_other, tl.trans(b_other), s, input_precision="ieee")


@triton.jit
def store_gradient(base, table, rows, valid, stride, rotated, other, ROTARY: tl.constexpr):
    """Takes the gradient of rotated queries or keys back through the position, and writes it."""
    rotated = rotate(rotated, table, rows, valid, ROTARY, True)
    place = base + rows[:, None] * stride + tl.arange(0, 32)[None, :]
    tl.store(place, rotated.to(base.dtype.element_ty), mask=valid[:, None])
    tl.store(place + 32, other.to(base.dtype.element_ty), mask=valid[:, None])


@triton.jit
def store_rows(base, rows, valid, stride, x, D: tl.constexpr = 64, W: tl.constexpr = 64):
    """Writes the first D numbers of the valid rows of x [rows, W]."""
    if D < W:
        i = tl.arange(0, W)[None, :]
        mask = valid[:, None] & (i < D)
        tl.store(base + rows[:, None] * stride + i, x.to(base.dtype.element_ty), mask=mask)
    else:
        place = base + rows[:, None] * stride + tl.arange(0, W)[None, :]
        tl.store(place, x.to(base.dtype.element_ty), mask=valid[:, None])


@triton.jit
def work_item(cu_seqlens, heads, blocks):
    """Block, head, first token and length of the sequence that this program works on.

    Blocks run fastest: those of one sequence and head read the same keys and values at about the same time.
    """
    pid = tl.program_id(0)
    block = pid % blocks
    head = (pid // blocks) % heads
    sequence = pid // (blocks * heads)
    start = tl.load(cu_seqlens + sequence)
    return block, head, start.to(tl.int64), tl.load(cu_seqlens + sequence + 1) - start


@triton.jit
def sine_cosine(a):
    """Sine and cosine of float32 angles in radians, within two roundings of float32 for angles up to a million.

    tl.sin keeps up to 40 bytes on the stack for large angles under Triton 3.6. This subtracts the
    nearest multiple of pi / 2 in float64, and evaluates series of the remainder, at most pi / 4.
    """
    quarters = tl.floor(a.to(tl.float64) * 0.6366197723675814 + 0.5)
    x = (a.to(tl.float64) - quarters * 1.5707963267948966).to(tl.float32)
    quadrant = (quarters - 4.0 * tl.floor(quarters * 0.25)).to(tl.int32)
    y = x * x
    sin = x + x * y * (-1 / 6 + y * (1 / 120 + y * (-1 / 5040 + y * (1 / 362880))))
    cos = 1.0 - y * (0.5 + y * (-1 / 24 + y * (1 / 720 + y * (-1 / 40320 + y * (1 / 3628800)))))
    swap = quadrant % 2 == 1
    return (
        tl.where(swap, cos, sin) * tl.where(quadrant >= 2, -1.0, 1.0),
        tl.where(swap, sin, cos) * tl.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0),
    )


@triton.jit
def _within(rows, tokens, i, R: tl.constexpr, WIDE: tl.constexpr):
    """Which numbers i of which rows there are; no number needs a mask if the R of a row fill WIDE."""
    return ((rows < tokens) & (i < R)) if R < WIDE else rows < tokens


@triton.jit(do_not_specialize=["tokens"])
def rotary_table_kernel(
    angles, table, tokens, ROTARY: tl.constexpr, BLOCK: tl.constexpr, R: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """angles [tokens, R] -> table [tokens, 2 R], float32, the factors that `rotate` applies.

    The diagonal form: sin a - cos a and sin a + cos a, for even and odd dimensions in turn. The rotation: R cosines,
    then R sines. WIDE is the next power of two from R on.
    """
    rows = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
    i = tl.arange(0, WIDE)[None, :]
    a = tl.load(angles + rows * R + i, mask=_within(rows, tokens, i, R, WIDE), other=0.0)
    sin, cos = sine_cosine(a)
    if ROTARY == 1:
        factors = tl.reshape(tl.join(sin - cos, sin + cos), (BLOCK, 2 * WIDE))
        place = table + rows * (2 * R) + tl.arange(0, 2 * WIDE)[None, :]
        tl.store(place, factors, mask=_within(rows, tokens, tl.arange(0, 2 * WIDE)[None, :], 2 * R, 2 * WIDE))
    else:
        tl.store(table + rows * (2 * R) + i, cos, mask=_within(rows, tokens, i, R, WIDE))
        tl.store(table + rows * (2 * R) + R + i, sin, mask=_within(rows, tokens, i, R, WIDE))


@triton.jit(do_not_specialize=UNSPECIALIZED)
def place_kernel(
    qkv, table, placed, tokens, heads, ROTARY: tl.constexpr, BLOCK: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """placed [tokens, 2, heads, D]: the queries and keys of qkv, with the position applied."""
    rows = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = rows < tokens
    first = tl.program_id(1) * D
    x = load_rows(qkv + first, rows, valid, heads * (3 * D), True, D, W)
    x = apply_position(x.to(tl.float32), table, rows, valid, ROTARY, False, R, W)
    store_rows(placed + first, rows, valid, heads * (2 * D), x, D, W)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def place_rows_kernel(
    x, table, placed, tokens, stride, ROTARY: tl.constexpr, TRANSPOSE: tl.constexpr, BLOCK: tl.constexpr,
    R: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """placed [tokens, heads, D]: x with the position applied, or a gradient with the transposed one.

    Tokens of x are `stride` numbers apart, the heads of one contiguous.
    """
    rows = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = rows < tokens
    head = tl.program_id(1) * D
    numbers = load_rows(x + head, rows, valid, stride, True, D, W)
    numbers = apply_position(numbers.to(tl.float32), table, rows, valid, ROTARY, TRANSPOSE, R, W)
    store_rows(placed + head, rows, valid, tl.num_programs(1) * D, numbers, D, W)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def unplace_kernel(
    grad_q, grad_k, grad_v, table, grad_qkv, tokens, heads, ROTARY: tl.constexpr, BLOCK: tl.constexpr,
    R: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """grad_qkv [tokens, 3, heads, D] from the gradients of placed queries and keys, and of values."""
    rows = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = rows < tokens
    head = tl.program_id(1) * D
    to = grad_qkv + head
    q = load_rows(grad_q + head, rows, valid, heads * D, True, D, W).to(tl.float32)
    stride = heads * (3 * D)
    q = apply_position(q, table, rows, valid, ROTARY, True, R, W)
    store_rows(to, rows, valid, stride, q, D, W)
    k = load_rows(grad_k + head, rows, valid, heads * D, True, D, W).to(tl.float32)
    to_keys = to + heads * D
    k = apply_position(k, table, rows, valid, ROTARY, True, R, W)
    store_rows(to_keys, rows, valid, stride, k, D, W)
    v = load_rows(grad_v + head, rows, valid, heads * D, True, D, W)
    store_rows(to + heads * (2 * D), rows, valid, stride, v, D, W)
