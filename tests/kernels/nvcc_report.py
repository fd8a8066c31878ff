"""Resources of the compiled CUDA kernels: registers, stack and spills from ptxas, warps of a block, shared memory.

python -m tests.kernels.nvcc_report        writes the table that test_cuda_resources.py compares with
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from reserve_kernels import native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.native import numbers_of
from reserve_kernels.registry import OPS

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("cuda_resources.json")
ARCHITECTURES = ("80", "90a", "100")
SOURCES = {op.folder: ROOT / "csrc" / op.folder / f"{op.folder}_cuda.cu" for op in OPS if op.native_cuda}
# The part of the mangled name by which to recognise each instantiation of a kernel, its name in the table, and the
# preset and playback speed that determine log-mel's shared memory, which the library computes.
LOG_MEL = {
    "12ELi8ELi8E": ("1536 points", "reserve", 1),
    "12ELi8ELi16E": ("3072 points", "reserve", 2),
    "12ELi12ELi16E": ("4608 points", "reserve", 3),
    "log_mel_mixed_kernel": ("any number of points, shared memory for 400", "whisper", 1),
}
VARIANTS = {
    "adamw_kernelIt": "bfloat16 moments",
    "adamw_kernelIf": "float32 moments",
    "StochasticBfloat16": "bfloat16 moments, stochastic",
    **{part: name for part, (name, _, _) in LOG_MEL.items()},
}


def find_nvcc() -> str | None:
    """The CUDA compiler, or None."""
    return shutil.which("nvcc")


def parse(text: str, ptx: str) -> dict[str, dict[str, int]]:
    """The resources of each kernel in the output of `ptxas -v`, and the warps of its blocks in the PTX."""
    report = {}
    for part in text.split("Compiling entry function '")[1:]:
        name = part.split("'", 1)[0]
        variant = next(key for key in VARIANTS if key in name)
        numbers = {
            "registers": r"Used (\d+) registers",
            "stack_bytes": r"(\d+) bytes stack frame",
            "spill_store_bytes": r"(\d+) bytes spill stores",
            "spill_load_bytes": r"(\d+) bytes spill loads",
        }
        threads = re.search(rf"\.entry {name}\(.*?\.maxntid (\d+)", ptx, flags=re.DOTALL)
        report[VARIANTS[variant]] = {
            **{key: int(re.search(pattern, part)[1]) for key, pattern in numbers.items()},  # type: ignore[index]
            "warps": int(threads[1]) // 32,  # type: ignore[index]
            "shared_bytes": _shared_bytes(variant),
        }
    return report


def _shared_bytes(variant: str) -> int:
    if variant not in LOG_MEL:
        return 0
    _, preset, speed = LOG_MEL[variant]
    return native.library().log_mel_cuda_shared_bytes(numbers_of(settings_of(preset, {}, speed)[0], torch.float32))


def compile_report(op: str, architecture: str) -> dict[str, dict[str, int]]:
    """Compiles the kernels of `op` for one architecture ("80", "90a" …) and returns what each needs."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++17", "-O3", "-Xptxas", "-v", "-cubin", "-o", f"{folder}/out.cubin"]
        command += ["--keep", "--keep-dir", folder]
        command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}"]
        command += [f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc", str(SOURCES[op])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (ptx,) = Path(folder).glob("*.ptx")
        return parse(done.stderr + done.stdout, ptx.read_text())


def release() -> str:
    """The compiler's version, such as "13.0": tables of two versions cannot be compared."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release (\d+\.\d+)", text)[1]  # type: ignore[index]


if __name__ == "__main__":
    table = {op: {f"sm_{a}": compile_report(op, a) for a in ARCHITECTURES} for op in SOURCES}
    TABLE.write_text(json.dumps({"nvcc": release(), "kernels": table}, indent=2, sort_keys=True) + "\n")
