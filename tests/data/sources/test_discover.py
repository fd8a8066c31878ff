"""Finding videos and giving each its own companions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reserve.data.sources.discover import discover_sources
from reserve.errors import BadInput

WORD_TIMED = "WEBVTT\n\n00:01.000 --> 00:02.000\na<00:01.500><c> b</c>\n"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(paths):
    return [path.name for path in paths]


def test_folder_as_yt_dlp_leaves_it(tmp_path):
    touch(tmp_path, "c/A talk [id1].mp4", "c/A talk [id1].en.vtt", "c/A talk [id1].info.json", "c/A talk [id1].webp")
    touch(tmp_path, "c/B.v2 [id2].webm", "c/B.v2 [id2].info.json", "c/B.v2 [id2].live_chat.json", "c/x.description")
    first, second = discover_sources([tmp_path])
    assert (first.video_id, first.path) == ("c/A talk [id1].mp4", tmp_path / "c/A talk [id1].mp4")
    assert names(first.transcripts) == ["A talk [id1].en.vtt"]
    assert first.info.name == "A talk [id1].info.json"
    assert (second.video_id, second.transcripts) == ("c/B.v2 [id2].webm", ())
    assert second.info.name == "B.v2 [id2].info.json"


def test_order_of_transcripts(tmp_path):
    touch(tmp_path, "a.mp4", "a.srt", "a.vtt", "a.fr.srt", "a.fr.json", "a.words.json", "a.en-orig.srt")
    (tmp_path / "a.en.vtt").write_text(WORD_TIMED)
    (source,) = discover_sources([tmp_path])
    assert names(source.transcripts) == [
        "a.words.json",
        "a.vtt",
        "a.srt",
        "a.en.vtt",
        "a.en-orig.srt",
        "a.fr.json",
        "a.fr.srt",
    ]


def test_language_can_be_chosen(tmp_path):
    touch(tmp_path, "a.mp4", "a.en.srt", "a.fr.srt")
    (source,) = discover_sources([tmp_path], languages=["fr"])
    assert names(source.transcripts) == ["a.fr.srt", "a.en.srt"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.eng.srt", "a.deu.srt"),
        ("a.EN.SRT", "a.de.vtt"),
        ("a.English.srt", "a.Deutsch.vtt"),
        ("a.srt", "a.forced.vtt"),
        ("a.en.srt", "a.en.forced.vtt"),
        ("a.de.srt", "a.en.forced.srt"),  # signs alone are not what is said, in any language
        ("a.en.srt", "a.en.sdh.srt"),
        ("a.en.srt", "a.auto.vtt"),
        ("a.en.srt", "a.en.whisper.json"),
        ("a.en-GB.srt", "a.de.srt"),
        ("a.en-US-eEY6OEpapPo.srt", "a.fr.vtt"),
        ("a.en.srt", "a.en.2.srt"),
        ("a.en-en.vtt", "a.en-ja.vtt"),  # not translated from Japanese
        ("a.fr-orig.vtt", "a.ar.vtt"),  # of other languages, the spoken one
    ],
)
def test_preferences(tmp_path, first, second):
    touch(tmp_path, "a.mp4", first, second)
    (source,) = discover_sources([tmp_path])
    assert names(source.transcripts) == [first, second]


def test_recognised_speech_comes_after_what_people_wrote(tmp_path):
    """YouTube's automatic captions have word times, and words that nobody checked."""
    touch(tmp_path, "a.mp4", "a.en-GB.srt")
    (tmp_path / "a.en.vtt").write_text("WEBVTT\n\n00:00:01.000 --> 00:00:02.000\na<00:00:01.500><c> b</c>\n")
    (source,) = discover_sources([tmp_path])
    assert names(source.transcripts) == ["a.en-GB.srt", "a.en.vtt"]


def test_case_of_names_does_not_matter_where_only_one_fits(tmp_path):
    touch(tmp_path, "one/Talk.MP4", "one/talk.EN.SRT", "two/talk.mp4", "two/TALK.mp4", "two/Talk.srt", "two/TALK.srt")
    found = {source.video_id: names(source.transcripts) for source in discover_sources([tmp_path])}
    assert found == {"one/Talk.MP4": ["talk.EN.SRT"], "two/TALK.mp4": ["TALK.srt"], "two/talk.mp4": []}


def test_composition_of_accents_does_not_matter(tmp_path):
    """macOS takes letters and accents apart in one name and not in the other."""
    touch(tmp_path, "caf\u00e9.mp4", "cafe\u0301.en.srt")
    (source,) = discover_sources([tmp_path])
    assert names(source.transcripts) == ["cafe\u0301.en.srt"]


def test_what_is_not_read_is_named(tmp_path):
    touch(tmp_path, "a.mp4", "a.en.srt", "a.part2.srt", "a.live_chat.json", "a.txt.bak")
    (source,) = discover_sources([tmp_path])
    assert [(other.name, other.reason) for other in source.passed_over] == [
        ("a.live_chat.json", "'live_chat' in its name is no language and no label"),
        ("a.part2.srt", "'part2' in its name is no language and no label"),
    ]


def test_companions_go_to_the_longest_matching_name(tmp_path):
    touch(tmp_path, "a.mp4", "a.fr.mp4", "a.fr.en.srt", "a.en.srt", "ab.srt", "a.part2.srt")
    short, long = sorted(discover_sources([tmp_path]), key=lambda source: len(source.path.name))
    assert names(short.transcripts) == ["a.en.srt"]
    assert names(long.transcripts) == ["a.fr.en.srt"]


def test_full_name_with_ending(tmp_path):
    touch(tmp_path, "a.mp3", "a.mp3.words.json", "a.mp4")
    sound, video = discover_sources([tmp_path])
    assert names(sound.transcripts) == ["a.mp3.words.json"]
    assert video.transcripts == ()


def test_two_encodings_share_companions(tmp_path):
    touch(tmp_path, "a.mp4", "a.webm", "a.vtt")
    assert [names(source.transcripts) for source in discover_sources([tmp_path])] == [["a.vtt"], ["a.vtt"]]


def test_companions_in_another_folder_are_not_taken(tmp_path):
    touch(tmp_path, "one/a.mp4", "two/a.vtt")
    (source,) = discover_sources([tmp_path])
    assert source.transcripts == ()


def test_files_by_name_whatever_their_ending(tmp_path):
    touch(tmp_path, "clip.dat", "clip.srt", "other.mp4")
    (source,) = discover_sources([tmp_path / "clip.dat"])
    assert (source.video_id, names(source.transcripts)) == ("clip.dat", ["clip.srt"])


def test_ids_stay_unique(tmp_path):
    touch(tmp_path, "one/a.mp4", "two/a.mp4")
    sources = discover_sources([tmp_path / "one", tmp_path / "two"])
    assert len({source.video_id for source in sources}) == 2


def test_a_file_found_in_two_ways_is_one(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.mp4", "in/sub/b.mp4")
    monkeypatch.chdir(tmp_path)
    sources = discover_sources(["in", tmp_path / "in", "in/sub", "in/a.mp4", tmp_path / "in" / "a.mp4"])
    assert [source.video_id for source in sources] == ["a.mp4", "sub/b.mp4"]


def test_linked_files_of_one_name_have_their_own_ids(tmp_path):
    touch(tmp_path, "real.mp4", "one/x", "two/x")
    for folder in ("one", "two"):
        (tmp_path / folder / "a.mp4").symlink_to(tmp_path / "real.mp4")
    sources = discover_sources([tmp_path / "one", tmp_path / "two"])
    assert len({source.video_id for source in sources}) == 2


def test_linked_folders_are_searched_once(tmp_path):
    touch(tmp_path, "in/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert [source.video_id for source in discover_sources([tmp_path / "in"])] == ["a.mp4", "linked/b.mp4"]


def test_folder_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    """Root, as which tests may run, can read every folder."""
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [source.video_id for source in discover_sources([tmp_path])] == ["a.mp4", "locked"]


def test_a_folder_that_is_removed_meanwhile_is_not_there(tmp_path, monkeypatch):
    """As the scratch folder of shards that another process finishes."""
    touch(tmp_path, "a.mp4", "early/b.mp4", "late/c.mp4")
    scan, walk = os.scandir, os.walk

    def remove(path):
        if path == str(tmp_path / "early"):
            shutil.rmtree(path)
        return scan(path)

    def walk_and_remove(*args, **options):
        for parent, folders, names in walk(*args, **options):
            if os.path.basename(parent) == "late":
                shutil.rmtree(parent)
            yield parent, folders, names

    monkeypatch.setattr(os, "scandir", remove)
    monkeypatch.setattr(os, "walk", walk_and_remove)
    assert [source.video_id for source in discover_sources([tmp_path])] == ["a.mp4"]


def test_many_folders_of_one_video_take_linear_time(tmp_path, monkeypatch):
    """Each folder's companions are looked for among its own media: a comparison of all with all took minutes."""
    touch(tmp_path, *(f"{i}/a.mp4" for i in range(60)))
    looked_at = []
    original = Path.parent
    monkeypatch.setattr(Path, "parent", property(lambda path: looked_at.append(path) or original.__get__(path)))
    assert len(discover_sources([tmp_path])) == 60
    assert len(looked_at) < 60 * 10


def test_hidden_files_and_unfinished_downloads_are_no_media(tmp_path):
    touch(tmp_path, ".a.mp4", "b.mp4.part", "c.mp4")
    assert [source.video_id for source in discover_sources([tmp_path])] == ["c.mp4"]


def test_pipe_among_the_transcripts_does_not_block(tmp_path):
    touch(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "a.vtt")
    (source,) = discover_sources([tmp_path])
    assert names(source.transcripts) == ["a.vtt"]


def test_no_media_files(tmp_path):
    with pytest.raises(BadInput, match="no media files"):
        discover_sources([tmp_path])
    with pytest.raises(BadInput, match=r"absent: no such file"):
        discover_sources([tmp_path / "absent"])
