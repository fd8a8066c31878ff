"""DALI's frames against PyAV's, on the CPU; those of a GPU where there is one."""

from __future__ import annotations

import pickle
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from reserve.data.decode.dali import MAX_DIFFERENCE, MEAN_DIFFERENCE, DaliDecoder
from reserve.data.decode.dali.clips import MAX_PIECES
from reserve.data.decode.dali.request import make_request
from reserve.data.decode.protocol import FrameRequest, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.images import resize, waiting_size
from reserve.errors import BadInput
from tests.helpers.coded_videos import CASES, HD, IRREGULAR, REGULAR, VP9, colourful, write_case, write_coded
from tests.helpers.media_files import read_number, write_media


@pytest.fixture(scope="module")
def dali():
    decoder = DaliDecoder()
    if (reason := decoder.unavailable()) is not None:
        pytest.skip(reason)
    return decoder


def requests(dali, paths, times):
    return [dali.request(None, path, times, MediaLimits()) for path in paths]


def expected(path, times):
    """PyAV's frames, scaled as DALI's are."""
    with PyAVDecoder().open(path) as media:
        return [resize(frame, *waiting_size(*frame.shape[:2])) for frame in media.frames(times)]


def assert_agree(found, right):
    assert len(found) == len(right)
    for image, other in zip(found, right, strict=True):
        assert image.shape == other.shape
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        difference = np.abs(image.astype(int) - other)
        assert difference.mean() <= MEAN_DIFFERENCE
        assert difference.max() <= MAX_DIFFERENCE


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """Writes each of CASES once."""
    folder = tmp_path_factory.mktemp("coded")
    return lambda name: folder / name if (folder / name).exists() else write_case(folder, name)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_pyav(dali, coded, name):
    path, times = coded(name), [0, 0.14, 0.14, 1.05, 1.19, 2.3, 3.9, 9]
    (found,) = map(list, dali.frames_of(requests(dali, [path], times)))
    assert_agree(found, expected(path, times))


def test_files_of_all_kinds_in_a_batch(dali, coded):
    paths, times = [coded(name) for name in CASES], [0.05, 0.55]
    found = list(map(list, dali.frames_of(requests(dali, paths, times))))
    for path, frames in zip(paths, found, strict=True):
        assert_agree(frames, expected(path, times))


def test_more_pieces_than_fit_a_batch(dali, tmp_path):
    path = write_media(tmp_path / "a.webm", frame_times=REGULAR, video_codec="libvpx-vp9", gop=2)
    asked = requests(dali, [path, path], [time + 0.01 for time in REGULAR])
    assert len(asked[0].pieces) > 2 * MAX_PIECES
    for frames in dali.frames_of(asked):
        assert [read_number(frame) for frame in frames] == list(range(len(REGULAR)))


def test_frames_that_nobody_takes(dali, tmp_path):
    path = write_media(tmp_path / "a.webm", frame_times=REGULAR, video_codec="libvpx-vp9", gop=2)
    taken = [read_number(next(frames)) for frames in dali.frames_of(requests(dali, [path] * 3, REGULAR))]
    assert taken == [0, 0, 0]
    with pytest.raises(StopIteration):
        next(dali.frames_of([]))


def test_damaged_piece_costs_its_file_only(dali, tmp_path, coded):
    path, times = coded("vp9.webm"), [0.05, 2.0]
    asked = requests(dali, [path] * 3, times)
    damaged = tmp_path / "damaged.webm"
    with pytest.importorskip("av").open(str(path)) as container:
        packet = next(bytes(packet) for packet in container.demux(video=0) if packet.is_keyframe)
    damaged.write_bytes(path.read_bytes().replace(packet, packet[:10] + b"\xff" * (len(packet) - 10)))
    asked[1] = replace(asked[1], path=damaged)
    found = []
    for frames in dali.frames_of(asked):
        try:
            found.append(list(frames))
        except BadInput as error:
            found.append(str(error))
    assert str(found[1]).startswith("DALI cannot decode its pictures: ")
    for each in (0, 2):
        assert_agree(found[each], expected(path, times))


def test_frame_number_beyond_the_end_is_an_error(dali, coded):
    """Not a black picture, which DALI returns if not asked otherwise."""
    (asked,) = requests(dali, [coded("vp8.webm")], [0.5])
    (piece,) = asked.pieces
    asked = replace(asked, pieces=(replace(piece, numbers=(piece.packets + 3,)),))
    with pytest.raises(BadInput, match=r"DALI cannot decode its pictures: .*out-of-bounds"):
        list(map(list, dali.frames_of([asked])))


def test_request_is_small_and_picklable(dali, tmp_path):
    path = write_media(
        tmp_path / "a.webm", frame_times=[index / 100 for index in range(1000)], video_codec="libvpx-vp9"
    )
    (asked,) = requests(dali, [path], [0.5, 9.0])
    assert len(pickle.dumps(asked)) < 2000
    assert pickle.loads(pickle.dumps(asked)).pieces == asked.pieces


def test_what_the_hardware_can_do_travels(dali):
    list(dali.frames_of([]))
    copy = pickle.loads(pickle.dumps(DaliDecoder()))
    assert copy._devices == dali.devices
    assert copy._pipelines is None


def test_unsuited_file_is_said(dali, tmp_path):
    path = write_media(tmp_path / "a.avi", frame_times=REGULAR, video_codec="mpeg4")
    with pytest.raises(BadInput, match="not for decoder 'dali': no table of frames for mpeg4"):
        list(map(list, dali.frames_of([FrameRequest(path, (0.0,), MediaLimits())])))


@pytest.mark.parametrize(
    ("platform", "spec", "reason"),
    [("darwin", object(), "Linux only"), ("linux", None, r"pip install 'merlot-reserve\[dali\]'")],
)
def test_unavailable(monkeypatch, platform, spec, reason):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("reserve.data.decode.dali.library.find_spec", lambda name: spec)
    assert re.search(reason, DaliDecoder().unavailable())


def test_import_that_fails_is_a_reason(monkeypatch):
    monkeypatch.setattr("reserve.data.decode.dali.library.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    assert DaliDecoder().unavailable().startswith("DALI cannot be imported: ")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h264.mp4", "libx264", {"options": {"bf": "3", "crf": "16"}}),
        ("bt709.mp4", "libx264", {"options": {"bf": "3", "crf": "16"}, "colorspace": 1}),
        ("large.mp4", "libx264", {"options": {"crf": "16"}, "picture": colourful(HD)}),
        ("hevc.mp4", "libx265", {"options": {"x265-params": "keyint=24:bframes=4:log-level=none"}}),
        ("vp9.webm", "libvpx-vp9", {"options": VP9}),
    ],
)
def test_gpu_agrees_with_pyav(dali, tmp_path, name, codec, options):
    if dali.devices.hardware.reason:
        pytest.skip(dali.devices.hardware.reason)
    path = write_coded(tmp_path / name, codec, IRREGULAR, **{"picture": colourful((144, 176)), **options})
    times = [0, 0.14, 0.14, 1.05, 1.19, 2.3, 3.9, 9]
    with PyAVDecoder().open(path) as media:
        if (reason := dali.devices._gpu_refuses(media.info.video)) is not None:
            pytest.skip(reason)
    asked = make_request(path, times, MediaLimits(), lambda stream: "mixed")
    (found,) = map(list, dali.frames_of([asked]))
    assert_agree(found, expected(path, times))
