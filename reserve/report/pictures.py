"""Pictures embedded in an HTML page: inline SVG, and images as data URIs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from reserve.config import DataConfig
from reserve.data.images import encode_jpeg
from reserve_kernels.log_mel.reference import hz_to_mel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, TARGET = "#333b46", "#d5dae1", "#1f6feb"
LINE_COLOURS = ("#0b5cad", "#c2410c", "#15803d")
LOUDEST = 8.0
"""Log-mel value at the top of a spectrogram's colour scale; loud speech reaches it."""
SPECTRUM_COLOURS = "magma"
MEL_RANGE = (20.0, 11025.0)
"""Frequency range of the mel bands in Hz (SPEC 2)."""
FREQUENCY_TICKS = {500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k"}
MAX_POINTS = 500
JPEG_QUALITY = 92


def frame_uri(image: np.ndarray) -> str:
    """An RGB image uint8 [height, width, 3] as a JPEG data URI."""
    return file_uri("image/jpeg", encode_jpeg(image, JPEG_QUALITY))


def clip_uri(log_mel: np.ndarray) -> str:
    """A log-mel [frames, mels] as an image data URI without axes: time to the right, low frequencies at the bottom."""
    from matplotlib import colormaps
    from PIL import Image

    shades = colormaps[SPECTRUM_COLOURS](np.clip(log_mel.T[::-1] / LOUDEST, 0, 1), bytes=True)[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shades)).save(buffer, format="PNG")
    return file_uri("image/png", buffer.getvalue())


def spectrogram_svg(
    log_mel: np.ndarray, playback_speed: int, starts: np.ndarray, length: int, masked: np.ndarray, data: DataConfig
) -> Markup:
    """A segment's log-mel [frames, mels] with axes in seconds of the video and in Hz.

    Brackets above it mark the audio subsegments of `length` frames from `starts` int [A]; `masked` bool [A] says which
    of them are masked.
    """
    frames, mels = log_mel.shape
    second = data.fft_hop_length * playback_speed / data.sample_rate
    figure, axes = _axes(6.4, 2.5)
    axes.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap=SPECTRUM_COLOURS,
        vmin=0,
        vmax=LOUDEST,
        extent=(-second / 2, (frames - 0.5) * second, -0.5, mels - 0.5),
        interpolation="nearest",
    )
    for start, is_masked in zip(starts, masked, strict=True):
        ends = [(start - 0.5) * second, (start + length - 0.5) * second]
        colour = TARGET if is_masked else FAINT
        axes.plot(ends, [mels + 2.5] * 2, color=colour, linewidth=4, clip_on=False, solid_capstyle="butt")
    axes.set_ylim(-0.5, mels - 0.5)
    ticks = {f: label for f, label in FREQUENCY_TICKS.items() if f <= data.sample_rate / 2}
    axes.set_yticks([mel_band(f, mels) for f in ticks], list(ticks.values()))
    axes.set_ylabel("Hz (mel scale)")
    axes.set_xlabel("seconds")
    return _svg(figure, "Log-mel spectrogram of the segment")


def mel_band(frequency: float, mels: int) -> float:
    """The position of a frequency in Hz among `mels` bands, where 0 is the centre of the lowest."""
    low, high = (hz_to_mel(end) for end in MEL_RANGE)
    return (hz_to_mel(frequency) - low) / (high - low) * (mels + 1) - 1


def curves_svg(
    title: str, steps: Sequence[float], lines: Mapping[str, Sequence[float]], chance: Mapping[str, float]
) -> Markup:
    """Curves over training steps by label, each with its chance level as a dashed line if `chance` has one."""
    figure, axes = _axes(4.6, 3.0)
    drawn_levels = set()
    for colour, (label, values) in zip(LINE_COLOURS, lines.items(), strict=False):
        x, y = thinned(np.asarray(steps, dtype=float), np.asarray(values, dtype=float))
        axes.plot(x, y, color=colour, linewidth=1.6, label=label, marker="o" if len(x) < 3 else None, markersize=4)
        level = chance.get(label)
        if level is not None and level not in drawn_levels:
            drawn_levels.add(level)
            shared = sum(other == level for other in chance.values()) > 1
            axes.axhline(level, color=INK if shared else colour, linewidth=1, linestyle=(0, (4, 3)))
    if drawn_levels:
        axes.plot([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.legend(frameon=False, fontsize=10, loc="best")
    return _svg(figure, title)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages both arrays over runs of consecutive points, so that at most MAX_POINTS remain."""
    size = -(-len(x) // MAX_POINTS) or 1
    bins = np.arange(0, len(x), size)
    counts = np.diff(np.append(bins, len(x)))
    return (np.add.reduceat(x, bins) / counts, np.add.reduceat(y, bins) / counts) if len(x) else (x, y)


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches with one pair of axes in the page's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, labelsize=10, length=3)
    axes.xaxis.label.set(color=INK, size=10)
    axes.yaxis.label.set(color=INK, size=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa3af")
    return figure, axes


def _svg(figure: Figure, title: str) -> Markup:
    """A figure as an inline <svg> that keeps text as text and refers to nothing outside the page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # A fixed salt makes the ids inside the file reproducible.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Group ids would repeat across figures, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    attributes = Markup('<svg role="img" aria-label="{}"').format(title)
    return Markup(re.sub(r"<svg", lambda _: attributes, text, count=1))


def file_uri(kind: str, data: bytes) -> str:
    """A file of a MIME type, such as image/png, as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
