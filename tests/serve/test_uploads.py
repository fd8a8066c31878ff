"""Uploads are whole or not there, and stay within their limits."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from reserve.errors import BadInput, UsageError
from reserve.serve.limits import Limits
from reserve.serve.uploads import Storage, UploadRefused

LIMITS = Limits(upload_bytes=1000, folder_bytes=2500)


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path / "own", LIMITS)
    yield storage
    storage.close()


def add(storage, data=b"a video", name="film.mp4", length=None, check=lambda path: None):
    async def chunks():
        for first in range(0, len(data), 100):
            yield data[first : first + 100]

    return asyncio.run(storage.add(name, length, chunks(), check))


def left(storage):
    return sorted(os.listdir(storage.uploads))


def test_an_upload_gets_an_id_and_keeps_its_name(storage):
    video = add(storage)
    assert video.path.read_bytes() == b"a video"
    assert (video.name, video.size, video.uploaded) == ("film.mp4", 7, True)
    assert storage.find(video.id) == video
    assert storage.list() == [video]
    assert left(storage) == [video.id]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/cron.d/x.mp4", "x.mp4"),
        ("C:\\films\\x.MP4", "x.MP4"),
        ("/x.mp4", "x.mp4"),
        ("a\nb\x00.mp4", "ab.mp4"),
        ("é" * 300 + ".mp4", "é" * 196 + ".mp4"),
        ("<b>.mp4", "<b>.mp4"),
    ],
)
def test_the_name_is_only_shown(storage, name, shown):
    video = add(storage, name=name)
    assert video.name == shown
    assert video.path == storage.uploads / video.id / f"video{video.path.suffix}"


@pytest.mark.parametrize("name", ["", "film", "film.mp4.exe", "film.html", ".mp4", "x.mp4/..", "film.m3u8"])
def test_other_endings_are_refused(storage, name):
    with pytest.raises(UploadRefused, match="a video ends in") as refused:
        add(storage, name=name)
    assert refused.value.status == 415
    assert left(storage) == []


@pytest.mark.parametrize("length", [None, 500])
def test_a_stream_that_is_too_long_is_cut_off(storage, length):
    with pytest.raises(UploadRefused) as refused:
        add(storage, b"x" * 1001, length=length)
    assert refused.value.status == 413
    assert left(storage) == []


def test_an_announced_length_that_is_too_long_is_not_even_read(storage):
    async def untouched():
        raise AssertionError
        yield

    with pytest.raises(UploadRefused) as refused:
        asyncio.run(storage.add("film.mp4", 1001, untouched(), lambda path: None))
    assert refused.value.status == 413


def test_what_is_no_video_is_refused_without_its_place(storage):
    def check(path):
        raise BadInput(f"{path}: not a video")

    with pytest.raises(UploadRefused, match=r"^film\.mp4: not a video$") as refused:
        add(storage, check=check)
    assert refused.value.status == 415
    assert left(storage) == []


def test_a_visitor_who_goes_away_leaves_nothing(storage):
    async def broken():
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(storage.add("film.mp4", None, broken(), lambda path: None))
    assert left(storage) == []
    assert add(storage, b"x" * 1000, length=1000)  # nothing is reserved any more


def test_a_full_disk_is_told(storage):
    def full():
        raise OSError(28, "No space left on device")

    async def chunks():
        yield b"half"
        full()

    with pytest.raises(UploadRefused, match="No space left") as refused:
        asyncio.run(storage.add("film.mp4", None, chunks(), lambda path: None))
    assert refused.value.status == 507


def test_the_folder_stays_within_its_bytes(storage):
    for _ in range(2):
        first = add(storage, b"x" * 1000, length=1000)
    with pytest.raises(UploadRefused, match="delete a video first") as refused:
        add(storage, b"x" * 600, length=600)
    assert refused.value.status == 507
    storage.delete(first)
    add(storage, b"x" * 600, length=600)


def test_uploads_that_are_being_written_count_too(storage):
    async def two():
        gate = asyncio.Event()

        async def slow():
            yield b"x"
            await gate.wait()
            yield b"x"

        async def quick():
            yield b"x"

        others = [asyncio.create_task(storage.add("film.mp4", None, slow(), lambda path: None)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UploadRefused, match="at most"):
            await storage.add("film.mp4", None, quick(), lambda path: None)
        gate.set()
        await asyncio.gather(*others)

    asyncio.run(two())
    assert len(left(storage)) == 2


def test_deleting_removes_the_video_and_its_indexes(storage):
    video = add(storage)
    index = storage.index_folder("model", video.id)
    index.mkdir(parents=True)
    (index / "part").write_bytes(b"x")
    storage.delete(video)
    assert left(storage) == []
    assert not index.exists()
    assert storage.find(video.id) is None


def test_a_start_removes_what_an_ended_server_left(tmp_path):
    storage = Storage(tmp_path, LIMITS)
    kept = add(storage)
    storage.close()
    gone = "u-" + "0" * 24
    (storage.uploads / f".partial-{gone}").mkdir()
    (storage.uploads / f".partial-{gone}" / "video.mp4").write_bytes(b"half")
    (storage.uploads / ".partial-of-something-else").mkdir()
    for video_id in (kept.id, gone, "u-else", "f-of-a-folder"):
        storage.index_folder("model", video_id).mkdir(parents=True)
    again = Storage(tmp_path, LIMITS)
    assert left(again) == [".partial-of-something-else", kept.id]
    assert sorted(os.listdir(again.indexes / "model")) == sorted([kept.id, "u-else", "f-of-a-folder"])
    again.close()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "uploads").mkdir()
    with pytest.raises(UsageError, match=r"is not empty and not a server's: it has no reserve-serve\.json"):
        Storage(tmp_path, LIMITS)
    assert os.listdir(tmp_path) == ["uploads"]


def test_other_accounts_cannot_read_what_is_stored(storage):
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (storage.uploads, storage.indexes)} == {0o700}


@pytest.mark.parametrize("info", [b"", b"{", b"\xff", b"[]", b"{}", b'{"name": 3}', b"[" * 10**5])
def test_an_upload_with_a_damaged_name_is_left_out_and_kept(tmp_path, caplog, info):
    storage = Storage(tmp_path, LIMITS)
    damaged, whole = add(storage), add(storage)
    storage.index_folder("model", damaged.id).mkdir(parents=True)
    storage.close()
    (storage.uploads / damaged.id / "info.json").write_bytes(info)
    again = Storage(tmp_path, LIMITS)
    assert again.list() == again.list() == [whole]
    assert [damaged.id in record.getMessage() for record in caplog.records] == [True]
    assert again.index_folder("model", damaged.id).is_dir()
    again.close()


def test_an_upload_that_stalls_gives_its_space_back(tmp_path):
    async def stalled():
        yield b"half"
        await asyncio.sleep(600)

    storage = Storage(tmp_path, Limits(upload_bytes=1000, folder_bytes=1500, stall_seconds=1))
    with pytest.raises(UploadRefused, match="nothing came for 1 s") as refused:
        asyncio.run(storage.add("film.mp4", 1000, stalled(), lambda path: None))
    assert refused.value.status == 408
    assert left(storage) == []
    assert add(storage, b"x" * 1000, length=1000)
    storage.close()


def test_two_servers_do_not_share_a_folder(storage):
    with pytest.raises(UsageError, match="another server uses"):
        Storage(storage.folder, LIMITS)


@pytest.mark.parametrize("wanted", ["../secret", "../../own/secret", "here", "", ".", "..", "u-" + "0" * 23])
def test_only_ids_are_looked_up(storage, wanted):
    for folder in (storage.folder / "secret", storage.uploads / "here", storage.uploads / ("u-" + "0" * 23)):
        folder.mkdir()
        (folder / "video.mp4").write_bytes(b"secret")
        (folder / "info.json").write_text('{"name": "secret.mp4"}')
    assert storage.find(wanted) is None
