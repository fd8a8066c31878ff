"""The line of each file in a run's files.jsonl."""

from __future__ import annotations

import json

import pytest

from reserve.config import DataConfig
from reserve.data.prepare.record import prepare_and_record, recorded_stores
from reserve.errors import BadInput, NothingPrepared
from tests.helpers.media_files import Sound, click_track, write_media

WORDS = [{"word": f"word{i}", "start": i * 0.5, "end": i * 0.5 + 0.5} for i in range(24)]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_media(folder / "a.mp4", frame_times=[i / 5 for i in range(60)], sounds=[Sound(click_track(12, [1.0]))])
    (folder / "a.json").write_text(json.dumps(WORDS))
    (folder / "a.de.srt").write_text("x")
    (folder / "a.info.json").write_text("[]")
    (folder / "b.mp4").write_bytes(b"x")
    return folder


def record(videos, out):
    prepare_and_record([videos], out, DataConfig(), workers=0, seed=0)
    return [json.loads(line) for line in (out / "files.jsonl").read_text().splitlines()]


def test_each_file_has_its_line(videos, tmp_path):
    good, bad = record(videos, tmp_path / "out")
    (store,) = recorded_stores(tmp_path / "out")
    assert good == {
        "file": str(videos / "a.mp4"),
        "status": "prepared",
        "segments": 2,
        "words": 20,
        "reason": "",
        "transcript": "a.json",
        "audio": "audio track 0",
        "passed_over": [{"name": "a.de.srt", "reason": "not tried: language de"}],
        "warnings": ["metadata ignored: a.info.json: not a JSON object"],
        "decoder": "pyav",
        "decoder_reason": good["decoder_reason"],
        "store": store.name,
    }
    assert (bad["file"], bad["status"], bad["store"]) == (str(videos / "b.mp4"), "skipped", None)
    assert bad["reason"].startswith("not a media file")


def test_second_run_records_the_same(videos, tmp_path):
    first = record(videos, tmp_path / "out")
    assert record(videos, tmp_path / "out") == [{**first[0], "status": "unchanged"}, first[1]]


def test_written_even_if_every_file_fails(videos, tmp_path):
    (videos / "a.mp4").write_bytes(b"x")
    with pytest.raises(NothingPrepared):
        record(videos, tmp_path / "out")
    assert recorded_stores(tmp_path / "out") == []


@pytest.mark.parametrize(
    "line", ["no JSON", "[]", "{}", '{"store": 3}', '{"store": "../a.safetensors"}', '{"store": ".."}']
)
def test_a_damaged_record_is_named(tmp_path, line):
    (tmp_path / "files.jsonl").write_text(f'{{"store": "a.safetensors"}}\n{line}\n')
    with pytest.raises(BadInput, match=r"files\.jsonl, line 2 is damaged: "):
        recorded_stores(tmp_path)
