"""Two repairs of Triton's interpreter.

It keeps bfloat16 as bare 16-bit integers and calculates with those. Repaired, it computes in float32 and rounds to the
nearest bfloat16 instead of truncating, as the compiled code does; `tl.dot` accumulates in float32.

It patches triton.language again at every call of a device function, which takes half of its time. Repaired, it patches
once a launch.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle


def _is_bfloat16(handle: TensorHandle) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _widened(handle: Any) -> Any:
    """A bfloat16 value as float32; anything else as it is."""
    if not isinstance(handle, TensorHandle) or not _is_bfloat16(handle):
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _rounded(handle: TensorHandle) -> TensorHandle:
    """A float32 value as the nearest bfloat16, ties to even."""
    bits = handle.data.astype(np.float32, copy=False).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return TensorHandle(np.where(np.isnan(handle.data), 0x7FC0, nearest).astype(np.uint16), tl.bfloat16)


def _cast(cast_impl: Any) -> Any:
    """The interpreter's `cast_impl`, through float32 for casts from or to bfloat16."""

    def run(builder: InterpreterBuilder, source: TensorHandle, dtype: Any) -> TensorHandle:
        source = _widened(source)
        if dtype.scalar == tl.bfloat16:
            return _rounded(cast_impl(builder, source, tl.float32))
        return cast_impl(builder, source, dtype)

    return run


def _in_float32(operation: Any) -> Any:
    """`operation` of the interpreter, computed in float32 where its first operand is bfloat16."""

    def run(builder: InterpreterBuilder, first: TensorHandle, *rest: Any) -> TensorHandle:
        if not _is_bfloat16(first):
            return operation(builder, first, *rest)
        result = operation(builder, _widened(first), *map(_widened, rest))
        # Comparisons give truth values, whatever the dtype they carry.
        return _rounded(result) if result.data.dtype == np.float32 else result

    return run


def _patch_once_a_launch() -> None:
    """Makes `_patch_lang` a no-op for the modules that it has patched since the kernel was launched."""
    patch, launch = interpreter._patch_lang, GridExecutor.__call__
    patched: set[Any] = set()

    @functools.cache
    def languages(function: Any) -> set[Any]:
        return {module for module in (tl, tl.core) if any(value is module for value in function.__globals__.values())}

    def patch_first(function: Any) -> Any:
        if languages(function) <= patched:
            return interpreter._LangPatchScope()
        patched.update(languages(function))
        return patch(function)

    def launch_anew(executor: GridExecutor, *args: Any, **kwargs: Any) -> None:
        patched.clear()
        launch(executor, *args, **kwargs)

    interpreter._patch_lang, GridExecutor.__call__ = patch_first, launch_anew


def install() -> None:
    """Repairs the interpreter of this process. A second call is a no-op."""
    if getattr(InterpreterBuilder, "is_repaired", False):
        return
    dot = InterpreterBuilder.create_dot
    InterpreterBuilder.create_dot = lambda builder, a, b, *rest: dot(builder, _widened(a), _widened(b), *rest)
    InterpreterBuilder.cast_impl = _cast(InterpreterBuilder.cast_impl)
    InterpreterBuilder.binary_op = _in_float32(InterpreterBuilder.binary_op)
    InterpreterBuilder.unary_op = _in_float32(InterpreterBuilder.unary_op)
    # Triton 3.6 has no such scope.
    if hasattr(interpreter, "_LangPatchScope"):
        _patch_once_a_launch()
    InterpreterBuilder.is_repaired = True
