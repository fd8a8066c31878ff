"""Only videos in the folder are listed, under ids that change with the file."""

from __future__ import annotations

import os

import pytest

from reserve.errors import BadInput
from reserve.serve.video_files import FolderVideos


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "videos"
    (folder / "trips").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"a")
    (folder / "trips" / "b.WEBM").write_bytes(b"b")
    return folder


def names(folder):
    return [video.name for video in FolderVideos(folder).list()]


def test_videos_are_found_below_the_folder(folder):
    assert names(folder) == ["a.mp4", "trips/b.WEBM"]


def test_what_is_no_video_is_not_listed(folder):
    (folder / "notes.txt").write_text("secret")
    (folder / ".hidden.mp4").write_bytes(b"a")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "c.mp4").write_bytes(b"a")
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    assert names(folder) == ["a.mp4", "trips/b.WEBM"]


def test_links_out_of_the_folder_are_not_followed(folder, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"s")
    (folder / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "relative.mp4").symlink_to("../secret.mp4")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    (folder / "elsewhere").symlink_to(tmp_path)
    (folder / "in.mp4").symlink_to("trips/b.WEBM")
    assert names(folder) == ["a.mp4", "trips/b.WEBM"]


def test_a_file_is_listed_once_by_its_own_name(folder):
    (folder / "0-link.mp4").symlink_to("trips/b.WEBM")
    (folder / ".hidden.mp4").write_bytes(b"c")
    for name in ("c1.mp4", "c2.mp4"):
        (folder / name).symlink_to(".hidden.mp4")
    assert names(folder) == ["a.mp4", "c1.mp4", "trips/b.WEBM"]


def test_a_video_that_becomes_a_link_out_of_the_folder_is_gone(folder, tmp_path):
    videos = FolderVideos(folder)
    video = videos.list()[0]
    assert videos.find(video.id) == video
    video.path.unlink()
    (tmp_path / "secret.mp4").write_bytes(b"a")
    os.utime(tmp_path / "secret.mp4", ns=(0, 0))
    video.path.symlink_to(tmp_path / "secret.mp4")
    assert videos.find(video.id) is None


@pytest.mark.parametrize(("content", "changed_ns"), [(b"another", 10**18), (b"b", 2 * 10**18)])
def test_another_file_of_the_same_name_is_another_video(folder, content, changed_ns):
    videos = FolderVideos(folder)
    os.utime(folder / "a.mp4", ns=(10**18, 10**18))
    before = videos.list()[0]
    before.path.write_bytes(content)
    os.utime(before.path, ns=(changed_ns, changed_ns))
    assert videos.find(before.id) is None
    after = videos.list()[0]
    assert after.name == before.name
    assert after.id != before.id


def test_a_new_video_is_found_without_a_restart(folder):
    videos = FolderVideos(folder)
    (folder / "c.mp4").write_bytes(b"c")
    new = next(video for video in FolderVideos(folder).list() if video.name == "c.mp4")
    assert videos.find(new.id) == new


@pytest.mark.parametrize("wanted", ["a.mp4", "../secret.mp4", "trips/b.WEBM", "/etc/passwd", "", "f-", "f-0" * 99])
def test_paths_are_no_ids(folder, wanted):
    assert FolderVideos(folder).find(wanted) is None


def test_names_that_are_not_unicode_can_be_shown(folder):
    (folder / os.fsdecode(b"\xff.mp4")).write_bytes(b"a")
    (folder / "line\nbreak.mp4").write_bytes(b"a")
    videos = FolderVideos(folder)
    for video in videos.list():
        video.name.encode("utf-8")
        assert videos.find(video.id) == video


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"missing: No such file"):
        FolderVideos(tmp_path / "missing")
