"""Finds and loads the library built from csrc/, and calls its ops through ctypes.

Importing this loads nothing. Without the library the ops fall back to their other implementations.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch

ABI_VERSION = 8
LIBRARY = "libreserve_native.so"

OK, INVALID_ARGUMENT, UNSUPPORTED, OUT_OF_MEMORY, CUDA_ERROR = range(5)
FLOAT32, BFLOAT16, FLOAT16, INT16 = range(4)
PAD_MODE = {"reflect": 0, "constant": 1, "replicate": 2, "circular": 3, "symmetric": 4}
ROTARY = {"reserve": 0, "standard": 1}
ISA = {"auto": 0, "baseline": 1, "avx2": 2, "avx512": 3}


class LogMel(ctypes.Structure):
    """`reserve_log_mel` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("waveform", ctypes.c_void_p),
        ("clip_offsets", ctypes.c_void_p),
        ("clips", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("clip_stride", ctypes.c_int64),
        ("frames", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("frame_extra", ctypes.c_int64),
        ("in_dtype", ctypes.c_int32),
        ("n_fft", ctypes.c_int32),
        ("window_length", ctypes.c_int32),
        ("hop_length", ctypes.c_int32),
        ("pad_mode", ctypes.c_int32),
        ("remove_dc", ctypes.c_int32),
        ("preemphasis", ctypes.c_float),
        ("power", ctypes.c_int32),
        ("n_mels", ctypes.c_int32),
        ("log", ctypes.c_int32),
        ("window", ctypes.c_void_p),
        ("band_start", ctypes.c_void_p),
        ("band_row", ctypes.c_void_p),
        ("band_weight", ctypes.c_void_p),
        ("floor", ctypes.c_float),
        ("offset", ctypes.c_float),
        ("relative", ctypes.c_int32),
        ("out_scale", ctypes.c_float),
        ("out_shift", ctypes.c_float),
        ("append", ctypes.c_int32),
        ("append_value", ctypes.c_float),
        ("bands_first", ctypes.c_int32),
        ("out_dtype", ctypes.c_int32),
        ("out", ctypes.c_void_p),
        ("twiddles", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("placed_row", ctypes.c_void_p),
        ("placed_weight", ctypes.c_void_p),
    )


class AdamwTensor(ctypes.Structure):
    """`reserve_adamw_tensor` of reserve_native.h."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("m", ctypes.c_void_p),
        ("v", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    )


class AdamwRandom(ctypes.Structure):
    """`reserve_adamw_random` of reserve_native.h."""

    _fields_ = (("key", ctypes.c_uint64), ("first", ctypes.c_uint64))


class AdamwSettings(ctypes.Structure):
    """`reserve_adamw_settings` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("learning_rate", ctypes.c_float),
        ("beta1", ctypes.c_float),
        ("rest1", ctypes.c_float),
        ("beta2", ctypes.c_float),
        ("rest2", ctypes.c_float),
        ("eps", ctypes.c_float),
        ("weight_decay", ctypes.c_float),
        ("m_scale", ctypes.c_float),
        ("v_scale", ctypes.c_float),
        ("moments_dtype", ctypes.c_int32),
    )


class QuickGelu(ctypes.Structure):
    """`reserve_quick_gelu` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("grad", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("grad_bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("features", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
    )


class Attention(ctypes.Structure):
    """`reserve_attention` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("q", ctypes.c_void_p),
        ("k", ctypes.c_void_p),
        ("v", ctypes.c_void_p),
        ("cu_seqlens", ctypes.c_void_p),
        ("cu_seqlens_k", ctypes.c_void_p),
        ("angles", ctypes.c_void_p),
        ("angles_k", ctypes.c_void_p),
        ("segment_ids", ctypes.c_void_p),
        ("segment_ids_k", ctypes.c_void_p),
        ("grad", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        ("grad_q", ctypes.c_void_p),
        ("grad_k", ctypes.c_void_p),
        ("grad_v", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("tokens_k", ctypes.c_int64),
        ("sequences", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("q_stride", ctypes.c_int64),
        ("kv_stride", ctypes.c_int64),
        ("head_size", ctypes.c_int32),
        ("token_angles", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("rotary", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


class ContrastiveScale(ctypes.Structure):
    """`reserve_contrastive_scale` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("grad", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("shares", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("factor", ctypes.c_float),
        ("of_factor", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("limit", ctypes.c_float),
    )


class ContrastiveLogsumexp(ctypes.Structure):
    """`reserve_contrastive_logsumexp` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("row_lse", ctypes.c_void_p),
        ("column_sum", ctypes.c_void_p),
        ("column_max", ctypes.c_void_p),
        ("diagonal", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("bounded", ctypes.c_int32),
        ("store", ctypes.c_int32),
    )


class ContrastiveWeights(ctypes.Structure):
    """`reserve_contrastive_weights` of reserve_native.h, which documents the fields."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("row_grad", ctypes.c_void_p),
        ("row_lse", ctypes.c_void_p),
        ("column_grad", ctypes.c_void_p),
        ("column_lse", ctypes.c_void_p),
        ("diagonal_grad", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("bounded", ctypes.c_int32),
        ("exponentiated", ctypes.c_int32),
    )


ContrastivePass = ContrastiveScale | ContrastiveLogsumexp | ContrastiveWeights
_CONTRASTIVE = {
    ContrastiveScale: "contrastive_scale_cpu",
    ContrastiveLogsumexp: "contrastive_logsumexp_cpu",
    ContrastiveWeights: "contrastive_weights_cpu",
}

_ADAMW: list[Any] = [
    ctypes.POINTER(AdamwSettings),
    ctypes.POINTER(AdamwTensor),
    ctypes.POINTER(AdamwRandom),
    ctypes.c_int64,
]
AdamwTensors = ctypes.Array[AdamwTensor]
AdamwRandoms = ctypes.Array[AdamwRandom] | None
"""One for each tensor, for stochastic rounding; None for rounding to the nearest."""


class NativeLibrary:
    """The loaded library with typed functions. They raise MemoryError, ValueError or RuntimeError on failure."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be loaded, ImportError if it has another interface version."""
        self.path = path
        self._c = ctypes.CDLL(str(path))
        version = getattr(self._c, "reserve_abi_version", lambda: None)()
        if version != ABI_VERSION:
            raise ImportError(f"{path} has interface version {version}, but {ABI_VERSION} is needed; install again")
        self._c.reserve_status_message.argtypes = [ctypes.c_int32]
        self._c.reserve_status_message.restype = ctypes.c_char_p
        self._c.reserve_log_mel_cpu.argtypes = [ctypes.POINTER(LogMel), ctypes.c_int32, ctypes.c_int32]
        self._c.reserve_log_mel_limited_cpu.argtypes = [
            ctypes.POINTER(LogMel),
            ctypes.c_float,
            ctypes.c_int32,
            ctypes.c_int32,
        ]
        self._c.reserve_log_mel_emulated.argtypes = [ctypes.POINTER(LogMel)]
        self.has_cuda = bool(self._c.reserve_has_cuda())

    def has_isa(self, isa: str) -> bool:
        """Whether this CPU and build have the instruction set "baseline", "avx2" or "avx512"."""
        return bool(self._c.reserve_has_isa(ISA[isa]))

    def log_mel_cpu(self, problem: LogMel, threads: int, isa: str = "auto", below: float | None = None) -> None:
        """Fills `problem.out`; all pointers are to CPU memory. Releases the GIL while it runs.

        With `below` it raises each clip's values to at least its largest less `below`, or if that is negative lowers
        them to at most its smallest less `below`.
        """
        if below is None:
            status = self._c.reserve_log_mel_cpu(ctypes.byref(problem), threads, ISA[isa])
        else:
            status = self._c.reserve_log_mel_limited_cpu(ctypes.byref(problem), below, threads, ISA[isa])
        self._check("log_mel_cpu", status)

    def log_mel_cuda(self, problem: LogMel, stream: int) -> None:
        """Launches the kernel on `stream` (a cudaStream_t) of the current device; all pointers are to its memory."""
        run = self._c.reserve_log_mel_cuda
        run.argtypes = [ctypes.POINTER(LogMel), ctypes.c_void_p]
        self._check("log_mel_cuda", run(ctypes.byref(problem), stream))

    def log_mel_emulated(self, problem: LogMel) -> None:
        """Runs the code of the CUDA kernel on the CPU, thread by thread: slow, for tests."""
        self._check("log_mel_emulated", self._c.reserve_log_mel_emulated(ctypes.byref(problem)))

    def adamw_cpu(
        self, settings: AdamwSettings, tensors: AdamwTensors, random: AdamwRandoms, threads: int, isa: str = "auto"
    ) -> None:
        """Updates all `tensors`, whose pointers are to CPU memory. Releases the GIL while it runs."""
        run = self._c.reserve_adamw_cpu
        run.argtypes = [*_ADAMW, ctypes.c_int32, ctypes.c_int32]
        self._check("adamw_cpu", run(ctypes.byref(settings), tensors, random, len(tensors), threads, ISA[isa]))

    def adamw_cuda(self, settings: AdamwSettings, tensors: AdamwTensors, random: AdamwRandoms, stream: int) -> None:
        """Launches the updates on `stream` (a cudaStream_t) of the current device; all pointers are to its memory."""
        run = self._c.reserve_adamw_cuda
        run.argtypes = [*_ADAMW, ctypes.c_void_p]
        self._check("adamw_cuda", run(ctypes.byref(settings), tensors, random, len(tensors), stream))

    def adamw_emulated(self, settings: AdamwSettings, tensors: AdamwTensors, random: AdamwRandoms) -> None:
        """Runs the code of the CUDA kernel on the CPU, thread by thread: slow, for tests."""
        run = self._c.reserve_adamw_emulated
        run.argtypes = _ADAMW
        self._check("adamw_emulated", run(ctypes.byref(settings), tensors, random, len(tensors)))

    def quick_gelu_cpu(self, problem: QuickGelu, threads: int, isa: str = "auto") -> None:
        """Fills `problem.out` and `problem.grad_bias`; all pointers are to CPU memory. Releases the GIL."""
        run = self._c.reserve_quick_gelu_cpu
        run.argtypes = [ctypes.POINTER(QuickGelu), ctypes.c_int32, ctypes.c_int32]
        self._check("quick_gelu_cpu", run(ctypes.byref(problem), threads, ISA[isa]))

    def attention_cpu(self, problem: Attention, threads: int, isa: str = "auto") -> None:
        """Fills `out` and `lse` of `problem`, or the gradients; all pointers are to CPU memory. Releases the GIL."""
        run = self._c.reserve_attention_cpu
        run.argtypes = [ctypes.POINTER(Attention), ctypes.c_int32, ctypes.c_int32]
        self._check("attention_cpu", run(ctypes.byref(problem), threads, ISA[isa]))

    def contrastive_cpu(self, problem: ContrastivePass, threads: int, isa: str = "auto") -> None:
        """Runs a pass of contrastive_loss; all pointers are to CPU memory. Releases the GIL."""
        name = _CONTRASTIVE[type(problem)]
        run = getattr(self._c, f"reserve_{name}")
        self._check(name, run(ctypes.byref(problem), ctypes.c_int32(threads), ctypes.c_int32(ISA[isa])))

    def log_mel_tables(self, problem: LogMel) -> tuple[torch.Tensor, torch.Tensor]:
        """Tables of the CUDA code for the numbers of `problem`, whose pointers are not used, on the CPU: the twiddles
        (float32), and where each bin's power is stored (int32 [n_fft // 2 + 1]).
        """
        floats, bins = ctypes.c_int32(), ctypes.c_int32()
        sizes = self._c.reserve_log_mel_table_sizes
        sizes.argtypes = [ctypes.POINTER(LogMel), ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int32)]
        self._check("log_mel_table_sizes", sizes(ctypes.byref(problem), ctypes.byref(floats), ctypes.byref(bins)))
        # The library writes to them, whatever the default device.
        twiddles = torch.empty(floats.value, dtype=torch.float32, device="cpu")
        places = torch.empty(bins.value, dtype=torch.int32, device="cpu")
        fill = self._c.reserve_log_mel_tables
        fill.argtypes = [ctypes.POINTER(LogMel), ctypes.c_void_p, ctypes.c_void_p]
        self._check("log_mel_tables", fill(ctypes.byref(problem), twiddles.data_ptr(), places.data_ptr()))
        return twiddles, places

    def log_mel_cuda_shared_bytes(self, problem: LogMel) -> int:
        """The bytes of shared memory that a block of the CUDA kernel needs for the numbers of `problem`; a build
        without CUDA knows too.
        """
        ask, needed = self._c.reserve_log_mel_cuda_shared_bytes, ctypes.c_int64()
        ask.argtypes = [ctypes.POINTER(LogMel), ctypes.POINTER(ctypes.c_int64)]
        self._check("log_mel_cuda_shared_bytes", ask(ctypes.byref(problem), ctypes.byref(needed)))
        return needed.value

    def _check(self, function: str, status: int) -> None:
        if status == OK:
            return
        message = f"{function}: {self._c.reserve_status_message(status).decode()}"
        raise {OUT_OF_MEMORY: MemoryError, INVALID_ARGUMENT: ValueError}.get(status, RuntimeError)(message)


@functools.cache
def _load() -> NativeLibrary | str:
    """The library, or why it cannot be loaded."""
    path = Path(__file__).with_name(LIBRARY)
    if not path.exists():
        return "the native library is not built: install with a C++ compiler and CMake"
    try:
        return NativeLibrary(path)
    except (OSError, ImportError) as error:
        return f"the native library cannot be loaded: {error}"


def library() -> NativeLibrary:
    """The native library. Raises RuntimeError with the reason if it cannot be loaded."""
    loaded = _load()
    if isinstance(loaded, str):
        raise RuntimeError(loaded)
    return loaded


def cpu_unavailable() -> str | None:
    """None if native CPU ops can run, else the reason."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def has_avx2() -> bool:
    """Whether native CPU ops can run and have AVX2 or better on this processor."""
    loaded = _load()
    return not isinstance(loaded, str) and loaded.has_isa("avx2")


# What torch.compiler.assume_constant_result does, which would import Triton: a compiler cannot trace the loading.
cpu_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]
has_avx2._dynamo_marked_constant = True  # type: ignore[attr-defined]


def cuda_unavailable() -> str | None:
    """None if the library has CUDA code, else the reason. It does not look for a GPU."""
    loaded = _load()
    if isinstance(loaded, str):
        return loaded
    return None if loaded.has_cuda else "the native library was built without CUDA: install with nvcc"


def describe() -> str:
    """One line on which native ops can run."""
    reason = cpu_unavailable()
    if reason is not None:
        return f"native ops: none ({reason}); the ops run in PyTorch"
    cuda = cuda_unavailable()
    return "native ops: CPU and CUDA" if cuda is None else f"native ops: CPU; no CUDA ({cuda})"
