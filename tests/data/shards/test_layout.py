"""Names and framing of shards."""

from __future__ import annotations

import io
import tarfile

import pytest

from reserve.data.shards.layout import (
    member_header,
    member_starts,
    padding,
    sample_key,
    sample_length,
    shard_name,
    shard_number,
    shard_of,
)


@pytest.mark.parametrize("number", [0, 7, 99_999, 100_000])
def test_a_shards_name_gives_its_number(number):
    assert shard_number(shard_name(number)) == number


@pytest.mark.parametrize("name", ["shard-1", "shard-000001", "shard-00001.tar", "../shard-00001", "shard-0000x", ""])
def test_other_names_are_no_shards(name):
    assert shard_number(name) is None


def test_videos_spread_over_shards_whatever_the_others_are():
    counts = [0] * 8
    for video in range(4000):
        counts[shard_of(f"video {video}.mp4", 8)] += 1
    assert min(counts) > 400
    assert shard_of("a.mp4", 1) == 0


def test_shards_of_names_that_are_not_unicode():
    assert 0 <= shard_of("vid\udce9o.mp4", 5) < 5


def test_keys_have_no_dot_and_tell_videos_apart():
    keys = {sample_key(video, segment) for video in ("a.mp4", "b.mp4", "a/b.c.d") for segment in (0, 1, 1439)}
    assert len(keys) == 9
    assert not any("." in key or "/" in key for key in keys)
    assert sorted(sample_key("a", segment) for segment in (10, 9, 1000)) == [sample_key("a", s) for s in (9, 10, 1000)]


@pytest.mark.parametrize("sizes", [(1, 512, 513), (0, 1, 2), (511, 1024, 5000)])
def test_a_sample_is_framed_as_a_tar_is(sizes):
    contents = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    sample = b"".join(
        member_header(f"key.{place}", len(each)) + each + bytes(padding(len(each)))
        for place, each in enumerate(contents)
    )
    assert len(sample) == sample_length(sizes)
    found = [sample[start : start + size] for start, size in zip(member_starts(sizes), sizes, strict=True)]
    assert found == contents
    with tarfile.open(fileobj=io.BytesIO(sample + bytes(1024))) as tar:
        assert [tar.extractfile(member).read() for member in tar] == contents


def test_headers_say_nothing_of_time_and_owner():
    member = tarfile.TarInfo.frombuf(member_header("a.jpg", 10), "ascii", "strict")
    assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
