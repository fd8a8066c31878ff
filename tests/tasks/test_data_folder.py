from __future__ import annotations

import pickle

import pytest

from reserve.errors import BadInput
from reserve.tasks import data_folder
from reserve.tasks.data_folder import (
    DataFile,
    FolderCheck,
    JsonLines,
    Record,
    files_below,
    read_json_lines,
    read_json_record,
    read_json_records,
    read_table,
)

READERS = {
    "json": (read_json_records, "a.json"),
    "one": (read_json_record, "a.json"),
    "lines": (read_json_lines, "a.jsonl"),
    "table": (lambda path: read_table(path, ["a"]), "a.csv"),
}


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    needed = DataFile("annotations/a.json", "the questions", "example.org")
    with pytest.raises(BadInput, match=r"annotations/a.json does not exist: the questions, from example.org"):
        needed.within(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.json").touch()
    assert needed.within(tmp_path) == tmp_path / "annotations" / "a.json"


def test_a_check_lists_what_is_missing(tmp_path):
    (tmp_path / "1.jpg").touch()
    report = FolderCheck()
    report.files("pictures", [tmp_path / f"{n}.jpg" for n in range(1, 7)], "example.org")
    report.paths("sounds", ["1.jpg", "9.mp3"], files_below(tmp_path), tmp_path, "example.net")
    assert report.lines == ["pictures: 1 of 6", "sounds: 1 of 2"]
    assert [problem.partition(" (")[0] for problem in report.problems[:2]] == [
        "5 of 6 pictures are missing",
        "1 of 2 sounds are missing",
    ]
    assert "2.jpg" in report.problems[0]
    assert "5.jpg" not in report.problems[0]
    assert report.problems[0].endswith(", …); get them from example.org")
    assert str(report).splitlines()[-1].startswith("problem: ")

    def fails(path):
        raise BadInput(f"{path.name} is odd")

    report.attempt(fails, tmp_path / "x")
    assert report.problems[-1] == "x is odd"


def test_a_folder_is_listed_with_its_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).touch()
    assert files_below(tmp_path) == {"x", "a/y", "a/b/z"}
    assert files_below(tmp_path / "none") == frozenset()


def test_linked_folders_are_listed_and_circles_are_not_followed(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other disk"
    for folder in (data, other / "b"):
        folder.mkdir(parents=True)
    (other / "b" / "x").touch()
    (data / "a").symlink_to(other, target_is_directory=True)
    (other / "b" / "up").symlink_to(other, target_is_directory=True)
    assert files_below(data) == {"a/b/x"}


@pytest.mark.parametrize("value", ["--5", "- 5", "9" * 5000, "1.0", "", "²"])
def test_text_that_is_no_whole_number_is_refused(value):
    with pytest.raises(BadInput, match="x: 'n' must be a whole number; got "):
        Record({"n": value}, "x").whole("n")
    assert Record({"n": " -12 "}, "x").whole("n") == -12


VALUES = {
    "text": "t",
    "whole": 3,
    "number": 0.5,
    "list": [1],
    "null": None,
    "digits": "-12",
    "decimal": "1.5",
    "no": True,
}
RECORD = Record(VALUES, "f.json, entry 2")


def test_fields_are_read_by_type():
    assert RECORD.text("text") == "t"
    assert RECORD.whole("whole") == 3
    assert RECORD.whole("digits") == -12
    assert (RECORD.number("number"), RECORD.number("whole"), RECORD.number("decimal")) == (0.5, 3, 1.5)
    assert RECORD.list("list") == [1]
    assert RECORD.text("null", "default") == RECORD.text("absent", "default") == "default"
    assert not RECORD.has("null")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: RECORD.text("whole"), "f.json, entry 2: 'whole' must be text; got 3"),
        (lambda: RECORD.text("null"), "f.json, entry 2 has no 'null'"),
        (lambda: RECORD.whole("number"), "'number' must be a whole number; got 0.5"),
        (lambda: RECORD.whole("no"), "'no' must be a whole number; got True"),
        (lambda: RECORD.number("text"), "'text' must be a finite number; got 't'"),
        (lambda: Record({"x": float("nan")}, "w").number("x"), "'x' must be a finite number; got nan"),
        (lambda: Record({"x": "inf"}, "w").number("x"), "'x' must be a finite number; got inf"),
        (lambda: RECORD.list("text"), "'text' must be a list; got 't'"),
        (lambda: Record([1], "f.json, entry 3"), "f.json, entry 3 must be a map of fields; got list"),
    ],
)
def test_a_wrong_field_is_named(read, message):
    with pytest.raises(BadInput, match=message):
        read()


def test_json_lines_are_read_one_by_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"n": 0}\r\n\n  \n{"n": 1, "t": "a\u2028b"}\n{"n": 2}'.encode())
    lines = pickle.loads(pickle.dumps(JsonLines(path)))
    assert len(lines) == 3
    assert [lines[i].whole("n") for i in (2, 0, 1)] == [2, 0, 1]
    assert [record.whole("n") for record in lines] == [0, 1, 2]
    assert lines[1].text("t") == "a\u2028b"
    assert lines[1].where == f"{path}, line 4"


def test_a_damaged_line_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": \n{"n": "\xff"}\n')
    lines = JsonLines(path)
    assert lines[0].whole("n") == 0
    with pytest.raises(BadInput, match="line 2 is not JSON"):
        lines[1]
    with pytest.raises(BadInput, match="line 3 is not UTF-8"):
        lines[2]
    with pytest.raises(BadInput, match="line 2 is not JSON"):
        read_json_lines(path)


def test_tables_have_named_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x, ""y"""\n\n2,"two\nlines"\n')
    rows = read_table(path, ["b"])
    assert [(row.whole("a"), row.text("b")) for row in rows] == [(1, 'x, "y"'), (2, "two\nlines")]
    assert rows[1].where == f"{path}, line 5"
    path.write_text('1\t"x\n2\ty"\n')
    rows = read_table(path, ["b"], delimiter="\t", header=("a", "b"))
    assert [row.text("b") for row in rows] == ['"x', 'y"']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "has no column 'b'; it has a, c"),
        ("a,b\n1,2\n3\n", "line 3 must have 2 columns; it has 1"),
        ("a,b\n1,2,3\n", "line 2 must have 2 columns; it has 3"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_table(tmp_path / "a.csv", ["a", "b"])


@pytest.mark.parametrize("kind", READERS)
def test_files_that_cannot_be_read_are_named(kind, tmp_path, monkeypatch):
    read, name = READERS[kind]
    path = tmp_path / name
    with pytest.raises(BadInput, match=f"{name}: cannot be opened"):
        read(path)
    path.touch()
    with pytest.raises(BadInput, match=f"{name}: empty file"):
        read(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadInput, match=f"{name}.* is not UTF-8"):
        read(path)
    monkeypatch.setattr(data_folder, "MAX_ANNOTATION_BYTES", 2)
    with pytest.raises(BadInput, match=f"{name}: 3 bytes are too many for annotations; at most 2"):
        read(path)


def test_json_must_hold_a_list_or_a_map(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json_record(path).whole("a") == 1
    with pytest.raises(BadInput, match=r"a.json must hold a list; got dict"):
        read_json_records(path)
    path.write_text("[{}, 3]")
    with pytest.raises(BadInput, match=r"a.json, entry 2 must be a map of fields; got int"):
        read_json_records(path)
    path.write_text("[" * 100_000)
    with pytest.raises(BadInput, match="is not JSON"):
        read_json_records(path)
