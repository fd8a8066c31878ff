"""Links the FFmpeg libraries that PyAV brings under their usual names, for torchcodec, which brings none.

    python -m tests.helpers.ffmpeg_libraries FOLDER

torchcodec then finds them with LD_LIBRARY_PATH=FOLDER. A machine with FFmpeg installed does not need it.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

BUNDLED = re.compile(r"(lib(?:av(?:codec|device|filter|format|util)|sw(?:resample|scale)))-[0-9a-f]+(\.so\.\d+)[\d.]*")
"""auditwheel puts a hash into the names, so that no other program finds these."""


def link(folder: Path) -> list[Path]:
    """The links made in `folder`; none where PyAV was built against a system's FFmpeg."""
    spec = find_spec("av")
    if spec is None or spec.origin is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for library in sorted(Path(spec.origin).parents[1].joinpath("av.libs").glob("lib*")):
        if found := BUNDLED.fullmatch(library.name):
            links.append(folder / "".join(found.groups()))
            links[-1].unlink(missing_ok=True)
            links[-1].symlink_to(library)
    return links


if __name__ == "__main__":
    print(f"{len(link(Path(sys.argv[1])))} FFmpeg libraries in {sys.argv[1]}")
