"""The back ends of rotary_attention, where each can run, and why the others cannot.

Importing another library is the last check: it happens only if the device and dtype fit and it is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from reserve_kernels import native
from reserve_kernels.attention.native import (
    DTYPES,
    attention_native,
    attention_native_backward,
    cross_attention_native,
    cross_attention_native_backward,
)
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.peers import (
    attention_flash_attn,
    attention_flash_attn_3,
    attention_flash_attn_4,
    attention_varlen,
    attention_xformers,
    cross_attention_flash_attn,
    cross_attention_flash_attn_3,
    cross_attention_flash_attn_4,
    cross_attention_varlen,
    cross_attention_xformers,
)
from reserve_kernels.attention.reference import (
    attention_reference,
    attention_reference_backward,
    cross_attention_reference,
    cross_attention_reference_backward,
)
from reserve_kernels.attention.sdpa_cpu import (
    attention_sdpa_cpu,
    attention_sdpa_cpu_backward,
    cross_attention_sdpa_cpu,
    cross_attention_sdpa_cpu_backward,
)
from reserve_kernels.attention.sdpa_padded import (
    attention_sdpa,
    attention_sdpa_cudnn,
    attention_sdpa_efficient,
    cross_attention_sdpa,
    cross_attention_sdpa_cudnn,
    cross_attention_sdpa_efficient,
)
from reserve_kernels.backends import Backend, Backends, below_ampere, runs_anywhere

HALF = (torch.float16, torch.bfloat16)

MODULES = {
    "triton": "triton",
    "flash-attn": "flash_attn.flash_attn_interface",
    "flash-attn-3": "flash_attn_interface",
    "flash-attn-4": "flash_attn.cute",
    "xformers": "xformers.ops",
    "torch.nn.attention.varlen": "torch.nn.attention.varlen",
}
"""What to import of each library."""


def _is_installed(library: str) -> bool:
    """Looks without importing anything but namespaces."""
    if library == "flash-attn-4":
        # Its module lies in a folder that flash-attn has too, and that of some versions has an older copy of it.
        try:
            importlib.metadata.distribution(library)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True
    if library == "flash-attn":
        spec = importlib.util.find_spec("flash_attn")
        folders = [] if spec is None else spec.submodule_search_locations or []
        return any((Path(folder) / "flash_attn_interface.py").is_file() for folder in folders)
    return importlib.util.find_spec(MODULES[library].partition(".ops")[0]) is not None


INSTALLED = {library: _is_installed(library) for library in MODULES}
"""Which libraries are installed: looked up once, since a compiled call cannot look."""


CrossBackward = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, CrossPacking],
    tuple[torch.Tensor, torch.Tensor],
]


@dataclass(frozen=True)
class AttentionBackend(Backend):
    """A back end of rotary_attention: the passes of a registered op, or one function that autograd differentiates.

    One that has both runs `composed` on a GPU, and the passes on the CPU.
    """

    forward: Callable[[torch.Tensor, Packing], tuple[torch.Tensor, torch.Tensor]] | None = None
    """(qkv, packing) -> (out [tokens, heads, size], lse [tokens, heads])"""
    statistics_by_head: bool = False
    """Whether `lse` is [heads, tokens]."""
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Packing], torch.Tensor] | None = None
    """(grad, qkv, out, lse, packing) -> the gradient of qkv"""
    composed: Callable[[torch.Tensor, Packing], torch.Tensor] | None = None
    """(qkv, packing) -> out [tokens, heads, size], made of differentiable calls of other libraries"""
    cross_forward: Callable[[torch.Tensor, torch.Tensor, CrossPacking], tuple[torch.Tensor, torch.Tensor]] | None = None
    """(q, kv, packing) -> (out [tokens, heads, size], lse [tokens, heads])"""
    cross_backward: CrossBackward | None = None
    """(grad, q, kv, out, lse, packing) -> the gradients of q and kv"""
    cross_composed: Callable[[torch.Tensor, torch.Tensor, CrossPacking], torch.Tensor] | None = None
    """(q, kv, packing) -> out, as `composed`"""

    takes_segments: bool = True
    """Whether it takes segment ids."""

    def cross_unavailable(self) -> str | None:
        """Why it takes no keys of other tokens, or None."""
        if self.cross_forward is None and self.cross_composed is None:
            return "kv: its kernels read queries, keys and values of one qkv"
        return None

    def runs_composed(self, device: torch.device) -> bool:
        """Whether it runs as one function that autograd differentiates on `device`."""
        return self.composed is not None and (self.forward is None or device.type not in ("cpu", "meta"))


@functools.cache
def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a library built for another PyTorch fails in many ways
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def _unusable(library: str) -> str | None:
    """Why `library` cannot be used, or None. It is imported once a process, but never by a call being compiled."""
    if not INSTALLED[library]:
        return f"{library} is not installed"
    if torch.compiler.is_compiling():
        return None
    error = _import_error(MODULES[library])
    return None if error is None else f"{library} is installed and cannot be imported: {error}"


def _needs_ampere(device: torch.device) -> str | None:
    if device.type == "cuda" and torch.version.hip is not None:
        return "it was made for NVIDIA's GPUs; this PyTorch is for AMD's"
    return below_ampere(device)


def _needs_ampere_and_half(device: torch.device, dtype: torch.dtype) -> str | None:
    return _needs_ampere(device) or (None if dtype in HALF else "it takes float16 and bfloat16 only")


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the Triton kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1)."""
    if not INSTALLED["triton"]:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "it computes in float32" if dtype == torch.float64 else None
    cut = None if dtype in HALF else "it takes float16 and bfloat16 only: tensor cores would cut float32"
    return _needs_ampere(device) or cut or _unusable("triton")


def slow_in_triton(device: torch.device, size: int) -> str | None:
    """Why "auto" leaves heads of `size` numbers to other libraries on `device`, or None."""
    if size <= 64 or device.type != "cuda" or torch.cuda.get_device_properties(device).major in (9, 10):
        return None
    return f"heads of {size} numbers fit only small tiles there"


def native_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the native CPU passes run."""
    if device.type != "cpu":
        return "it runs on the CPU only"
    if dtype not in DTYPES:
        return "it takes float32 and bfloat16 only"
    return native.cpu_unavailable()


def _library_unavailable(
    library: str, majors: tuple[int, ...] = ()
) -> Callable[[torch.device, torch.dtype], str | None]:
    """`majors`: the major compute capabilities that it is used on, if not all from 8."""

    def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
        if not INSTALLED[library]:
            return f"{library} is not installed"
        reason = _needs_ampere_and_half(device, dtype)
        if reason is None and majors and (major := torch.cuda.get_device_properties(device).major) not in majors:
            wanted = " or ".join(f"{m}.x" for m in majors)
            reason = f"it is used on compute capability {wanted}; this device has {major}.x"
        return reason or _unusable(library)

    return unavailable


def _triton_forward(qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    from reserve_kernels.attention.triton import attention_triton

    return attention_triton(qkv, packing)


def _triton_backward(
    grad: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, packing: Packing
) -> torch.Tensor:
    from reserve_kernels.attention.triton import attention_triton_backward

    return attention_triton_backward(grad, qkv, out, lse, packing)


BACKENDS = Backends(
    "rotary_attention",
    AttentionBackend(
        "triton", triton_unavailable, forward=_triton_forward, backward=_triton_backward, statistics_by_head=True
    ),
    AttentionBackend(
        "flash_attn",
        _library_unavailable("flash-attn"),
        composed=attention_flash_attn,
        cross_composed=cross_attention_flash_attn,
        takes_segments=False,
    ),
    AttentionBackend(
        "flash_attn_3",
        _library_unavailable("flash-attn-3", (9,)),
        composed=attention_flash_attn_3,
        cross_composed=cross_attention_flash_attn_3,
        takes_segments=False,
    ),
    AttentionBackend(
        "flash_attn_4",
        _library_unavailable("flash-attn-4", (9, 10)),
        composed=attention_flash_attn_4,
        cross_composed=cross_attention_flash_attn_4,
        takes_segments=False,
    ),
    AttentionBackend(
        "varlen",
        _library_unavailable("torch.nn.attention.varlen"),
        composed=attention_varlen,
        cross_composed=cross_attention_varlen,
        takes_segments=False,
    ),
    AttentionBackend(
        "xformers",
        _library_unavailable("xformers"),
        composed=attention_xformers,
        cross_composed=cross_attention_xformers,
        takes_segments=False,
    ),
    AttentionBackend(
        "native",
        native_unavailable,
        forward=attention_native,
        backward=attention_native_backward,
        cross_forward=cross_attention_native,
        cross_backward=cross_attention_native_backward,
    ),
    AttentionBackend(
        "sdpa",
        runs_anywhere,
        forward=attention_sdpa_cpu,
        backward=attention_sdpa_cpu_backward,
        composed=attention_sdpa,
        cross_forward=cross_attention_sdpa_cpu,
        cross_backward=cross_attention_sdpa_cpu_backward,
        cross_composed=cross_attention_sdpa,
    ),
    AttentionBackend(
        "sdpa_cudnn",
        _needs_ampere_and_half,
        composed=attention_sdpa_cudnn,
        cross_composed=cross_attention_sdpa_cudnn,
    ),
    AttentionBackend(
        "sdpa_efficient",
        _needs_ampere_and_half,
        composed=attention_sdpa_efficient,
        cross_composed=cross_attention_sdpa_efficient,
    ),
    AttentionBackend(
        "reference",
        runs_anywhere,
        forward=attention_reference,
        backward=attention_reference_backward,
        cross_forward=cross_attention_reference,
        cross_backward=cross_attention_reference_backward,
    ),
)
