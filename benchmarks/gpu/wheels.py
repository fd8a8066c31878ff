"""Carries DALI and PyAV to a GPU machine without a network, in pieces of at most 56 MiB.

On a machine with a network and this repository:

    python -m benchmarks.gpu.wheels split           # downloads the wheels, and cuts them into pieces

It writes build/gpu-wheels/pieces/: manifest.json and piece-000, piece-001 … Then one call of the GPU machine for each
piece, of which each carries one (a call takes at most 64 MiB; what earlier calls have brought stays there):

    call 1:  carry build/gpu-wheels/pieces/manifest.json and build/gpu-wheels/pieces/piece-000; run: true
    call 2:  carry build/gpu-wheels/pieces/piece-001; run: true
    …
    last:    carry the last piece; run:
             python3 -m benchmarks.gpu.wheels join &&
             PYTHONPATH="$PWD/build/gpu-wheels/site" bash benchmarks/lease.sh --out "$OUT" library tests decoding

A call costs the machine's time: make them one right after another, and the last one the one that measures. `join` says
which piece is absent or damaged. It unpacks into build/gpu-wheels/site, where
benchmarks/decoding_lease.py looks by itself.

Which wheels: DALI links nothing outside its own wheel (readelf -d). It opens libnvimgcodec for pictures, and that opens
libnvjpeg, which comes with the CUDA toolkit in /usr/local/cuda/lib64, as cuFFT and NPP do; libnvcuvid comes with the
driver. Neither video nor JPEG needs nvcomp, nvtiff and nvjpeg2k. Extension modules for other Pythons are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "gpu-wheels"
PIECE_BYTES = 56 << 20
PYTHON = "3.12"
"""Of the GPU machines."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CARRIED = ("nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "av")
IMPORTED = ("astunparse", "gast", "optree", "packaging", "six", "typing-extensions", "wheel")
"""What importing DALI and its dependencies needs besides NumPy."""
_OTHER_PYTHON = re.compile(r"\.cpython-3(?!12-)\d+t?-")
_NOT_NEEDED = re.compile(r"nvidia/__init__\.py|.*/(libnvtiff_ext|libnvjpeg2k_ext|libopencv_ext)\.so\b.*")
"""Without nvidia/__init__.py, the folder joins those of the machine's own packages."""


def download(folder: Path) -> list[Path]:
    """The wheels for the GPU machines' Python, of the versions in constraints.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, *platforms, "--dest", str(folder), *map(pinned, CARRIED), *IMPORTED]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"))


def pinned(name: str) -> str:
    """`name` with the version that constraints.txt has for it."""
    found = re.search(rf"^{re.escape(name)}==([^\s;]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    return f"{name}=={found[1]}" if found else name


def is_needed(name: str) -> bool:
    """Whether a file of a wheel is of use on the GPU machine."""
    return not (_OTHER_PYTHON.search(name) or _NOT_NEEDED.fullmatch(name))


def split(wheels: list[Path], pieces: Path, piece_bytes: int = PIECE_BYTES) -> dict[str, Any]:
    """Writes what is needed of `wheels` as one archive in pieces, and returns their manifest."""
    shutil.rmtree(pieces, ignore_errors=True)
    pieces.mkdir(parents=True)
    archive = pieces.parent / "wheels.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as opened:
                for entry in filter(is_needed, opened.namelist()):
                    if not entry.endswith("/"):
                        packed.writestr(entry, opened.read(entry))
    manifest: dict[str, Any] = {"wheels": [wheel.name for wheel in wheels], "sha256": _digest(archive), "pieces": {}}
    with archive.open("rb") as content:
        while piece := content.read(piece_bytes):
            path = pieces / f"piece-{len(manifest['pieces']):03}"
            path.write_bytes(piece)
            manifest["pieces"][path.name] = _digest(path)
    archive.unlink()
    (pieces / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    return manifest


def join(pieces: Path, site: Path) -> str | None:
    """Unpacks the pieces into `site`, which it replaces. Returns why it cannot, or None."""
    if not (pieces / "manifest.json").exists():
        return f"no {pieces / 'manifest.json'}: the first call carries it"
    manifest = json.loads((pieces / "manifest.json").read_text("utf-8"))
    for name, digest in manifest["pieces"].items():
        if not (pieces / name).exists():
            return f"no {name} of {len(manifest['pieces'])} pieces: carry it"
        if _digest(pieces / name) != digest:
            return f"{name} is damaged: carry it again"
    archive = pieces.parent / "wheels.zip"
    with archive.open("wb") as joined:
        for name in manifest["pieces"]:
            joined.write((pieces / name).read_bytes())
    shutil.rmtree(site, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(site)
    archive.unlink()
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if pieces are absent or damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.wheels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["split", "join"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    pieces, site = options.folder / "pieces", options.folder / "site"
    if options.action == "split":
        manifest = split(download(options.folder / "wheels"), pieces)
        print(f"{len(manifest['pieces'])} pieces in {pieces}, of {', '.join(manifest['wheels'])}")
        return 0
    if (reason := join(pieces, site)) is not None:
        print(f"benchmarks.gpu.wheels: {reason}", file=sys.stderr)
        return 1
    print(f"unpacked into {site}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
