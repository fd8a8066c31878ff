import re
from pathlib import Path

import pytest

from reserve.data.decode import choose_file_decoder
from reserve.synthetic.datasets.lsmdc import BLANK, FILES
from tests.helpers.scene_truth import holds

TIME = r"\d\d\.\d\d\.\d\d\.\d{3}"


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "lsmdc"


def rows(folder: Path, split: str) -> list[list[str]]:
    return [line.split("\t") for line in (folder / FILES[split]).read_text().splitlines()]


def seconds(stamp: str) -> float:
    hours, minutes, rest = stamp.split(".", 2)
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.parametrize("split", FILES)
def test_rows_have_the_eight_columns_of_the_data_set(folder, split):
    """The columns are those that the data set's own readme lists; there is no genuine sample here."""
    found = rows(folder, split)
    assert len(found) == {"train": 12, "val": 7, "test": 6}[split]
    for name, *times, sentence, question, answer in found:
        assert re.fullmatch(rf"\d{{4}}_\w+_{TIME}-{TIME}", name)
        assert all(re.fullmatch(TIME, time) for time in times)
        assert len(times) == 4
        assert name.endswith(f"{times[2]}-{times[3]}")
        assert question.replace(BLANK, answer) == sentence
        assert " " not in answer


def test_one_validation_row_lacks_its_blank(folder):
    for split in FILES:
        blanks = [question.count(BLANK) for *_, question, _ in rows(folder, split)]
        assert set(blanks[: -1 if split == "val" else None]) == {1}
        assert split != "val" or blanks[-1] == 0


def test_sentences_say_what_the_clip_shows(folder, stories):
    for split, stem in (("train", "train"), ("val", "heldout")):
        for name, start, end, *_, sentence, _, _ in rows(folder, split):
            video = getattr(stories, stem)[(int(name[:4]) - 1) % 1000]
            begin, stop = seconds(start), seconds(end)
            (timed,) = [timed for timed in video.scenes if timed.start <= begin and stop <= timed.end]
            assert holds(sentence, timed.scene)
            with choose_file_decoder().open(folder / name[: name.index("_00.")] / f"{name}.avi") as media:
                assert media.soundtrack().media_end == pytest.approx(stop - begin, abs=0.25)
                assert len(list(media.frames([0.0, stop - begin - 0.3]))) == 2


def test_different_words_are_left_out(folder):
    assert len({answer for split in FILES for *_, answer in rows(folder, split)}) > 6
