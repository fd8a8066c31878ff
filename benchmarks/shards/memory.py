"""Memory that `reserve prepare` takes at most, by the length of a video.

Long videos are one synthetic video over and over, packets and words.
`python -m benchmarks.shards.memory --videos FOLDER --save` stores the result in benchmarks/results;
docs/twenty_million.md shows it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.shards.preparing import store_result
from reserve.config import DataConfig
from reserve.data.decode import choose_file_decoder
from reserve.data.prepare.words import find_words
from reserve.data.sources.discover import VideoSource, discover_sources
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.types import Word

FILE = "shards_memory.json"
MINUTES = (2, 20, 60, 120)
"""Of the videos. Preparation ignores what comes after two hours."""


def repeat_video(source: VideoSource, path: Path, minutes: float) -> None:
    """Writes `source` again and again until it lasts `minutes`, and NAME.words.json with its words."""
    import av

    words, seconds = _words(source)
    repetitions = math.ceil(minutes * 60 / seconds)
    with av.open(str(path), "w") as long:
        streams: dict[int, Any] = {}
        for repetition in range(repetitions):
            with av.open(str(source.path)) as short:
                for stream in (*short.streams.video, *short.streams.audio):
                    if stream.index not in streams:
                        streams[stream.index] = long.add_stream_from_template(stream)
                for packet in short.demux():
                    if packet.dts is None or packet.pts is None or packet.stream.index not in streams:
                        continue
                    offset = round(repetition * seconds / float(packet.time_base))
                    packet.dts, packet.pts = packet.dts + offset, packet.pts + offset
                    packet.stream = streams[packet.stream.index]
                    long.mux(packet)
    spoken = [
        {"word": word.text, "start": word.start + again * seconds, "end": word.end + again * seconds}
        for again in range(repetitions)
        for word in words
    ]
    path.with_suffix(".words.json").write_text(json.dumps(spoken), "utf-8")


def _words(source: VideoSource) -> tuple[Sequence[Word], int]:
    """The words of a video, and the whole seconds after which it may start again."""
    data = DataConfig()
    with choose_file_decoder().open(source.path) as media:
        track = choose_audio_track(media.info.audio, data.languages)
        end = media.soundtrack(track=track, sample_rate=data.sample_rate).media_end
        return find_words(source, media, track, end, data.languages)[0], math.ceil(end + 0.1)


_PEAK = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""Linux counts the memory of the process that starts a command as the command's, so a small one starts it."""


def peak_bytes(videos: Path, out: Path) -> int:
    """The memory that the largest process of `reserve prepare` has in use at most, with one process that prepares."""
    command = [sys.executable, "-m", "reserve", "prepare", str(videos), str(out), "--workers", "1"]
    return command_peak(command)


def command_peak(command: Sequence[str]) -> int:
    """The memory in bytes that the largest process of a command has in use at most. RuntimeError if it fails."""
    done = subprocess.run([sys.executable, "-c", _PEAK, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return int(done.stdout)


def measure(source: VideoSource, minutes: Sequence[float]) -> dict[str, Any]:
    """Peak bytes for each length."""
    peaks = {}
    for each in minutes:
        with tempfile.TemporaryDirectory() as folder:
            (videos := Path(folder, "videos")).mkdir()
            repeat_video(source, videos / "long.mp4", each)
            peaks[f"{each:g}"] = peak_bytes(videos, Path(folder, "out"))
        print(f"{each:g} minutes: {peaks[f'{each:g}'] / 1e9:.2f} GB", flush=True)
    return {"peak_bytes": peaks}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards.memory", description=__doc__)
    parser.add_argument(
        "--videos", type=Path, required=True, help="a folder of videos, such as `reserve demo-data` makes"
    )
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    result = measure(discover_sources([options.videos])[0], MINUTES)
    if options.save:
        store_result(FILE, result)


if __name__ == "__main__":
    main()
