"""Small data sets in the formats of the zero-shot tasks' owners, over videos made here."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.media_files import Sound, click_track, write_media
from tests.helpers.tiny import tiny

FRAMES_PER_SECOND = 4


def write_video(path: Path, seconds: float, *, sound: bool = True) -> Path:
    """A video whose frame i shows the number i, with a click a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_media(
        path,
        frame_times=[index / FRAMES_PER_SECOND for index in range(int(seconds * FRAMES_PER_SECOND))],
        sounds=[Sound(click_track(seconds, [second + 0.5 for second in range(int(seconds))]))] if sound else [],
    )


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def small_model() -> MerlotReserve:
    """A model for the packaged vocabulary."""
    torch.manual_seed(0)
    return MerlotReserve(tiny(vocab_size=2**15, vit_patch_size=16)).eval()


EPIC_COLUMNS = (
    *("narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp"),
    *("start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class"),
    *("all_nouns", "all_noun_classes"),
)
EPIC_VERBS = {0: "take", 1: "put", 7: "turn-on"}
EPIC_NOUNS = {0: "tap", 2: "plate", 18: "board:chopping", 174: "opener:bottle"}


def epic_row(key: str, video: str, start: str, verb: int, noun: int) -> list[Any]:
    participant = video.partition("_")[0]
    names = (EPIC_VERBS[verb], verb, EPIC_NOUNS[noun], noun)
    listed = ([EPIC_NOUNS[noun]], [noun])
    return [key, participant, video, start, start, "00:00:59.00", 1, 2, "a narration, with comma", *names, *listed]


def epic_folder(folder: Path, *, actions_file: bool = True) -> Path:
    """Two videos of 12 s, P01_11 and P18_01, with five actions."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        epic_row("P01_11_0", "P01_11", "00:00:00.50", 0, 2),
        epic_row("P01_11_1", "P01_11", "00:00:05.25", 1, 18),
        epic_row("P01_11_2", "P01_11", "00:00:05.25", 0, 2),
        epic_row("P18_01_0", "P18_01", "00:00:11.00", 7, 0),
        epic_row("P18_01_1", "P18_01", "00:00:08.40", 0, 174),
    ]
    write_csv(folder / "EPIC_100_validation.csv", EPIC_COLUMNS, rows)
    write_csv(folder / "EPIC_100_train.csv", EPIC_COLUMNS, [*rows, epic_row("P02_1_0", "P02_1", "00:00:01.00", 7, 2)])
    times = [row[:8] for row in rows]
    write_csv(folder / "EPIC_100_test_timestamps.csv", EPIC_COLUMNS[:8], times)
    for kind, names in (("verb", EPIC_VERBS), ("noun", EPIC_NOUNS)):
        classes = [[number, name, f"['{name}', 'other']", "category"] for number, name in names.items()]
        write_csv(folder / f"EPIC_100_{kind}_classes.csv", ["id", "key", "instances", "category"], classes)
    write_csv(folder / "EPIC_100_tail_verbs.csv", ["verb"], [[7], [90]])
    write_csv(folder / "EPIC_100_tail_nouns.csv", ["noun"], [[174]])
    write_csv(folder / "EPIC_100_unseen_participant_ids_validation.csv", ["participant_id"], [["P18"]])
    if actions_file:
        pairs = [(0, 0), (0, 18), (0, 174), (0, 2), (1, 18), (7, 0)]
        actions = [[i, v, n, f"{EPIC_VERBS[v]} {EPIC_NOUNS[n]}"] for i, (v, n) in enumerate(pairs)]
        write_csv(folder / "actions.csv", ["id", "verb", "noun", "action"], actions)
    write_video(folder / "videos/P01/P01_11.MP4", 12)
    write_video(folder / "videos/P18/P18_01.MP4", 12, sound=False)
    return folder


def msrvtt_folder(folder: Path) -> Path:
    """Four videos, of 2, 7, 12 (without sound) and 28 s; two validation questions about each but one about the last."""
    folder.mkdir(parents=True, exist_ok=True)
    train = ["dog"] * 3 + ["sing"] * 3 + ["two"] * 2 + ["car"]
    questions = [{"answer": answer, "category_id": 0, "id": i, "question": "what?", "video_id": 0}
                 for i, answer in enumerate(train)]  # fmt: skip
    write_json(folder / "train_qa.json", questions)
    asked = [
        (6513, "what is a man doing?", "sing"),
        (6513, "how many people are there?", "two"),
        (6514, "who is singing?", "dog"),
        (6514, "what does a man drive?", "car"),
        (6515, "what is it?", "banjo"),
        (6515, "what is a man doing?", "sing"),
        (6516, "what is a man doing?", "sing"),
    ]
    val = [{"answer": answer, "category_id": 1, "id": 100 + i, "question": question, "video_id": video}
           for i, (video, question, answer) in enumerate(asked)]  # fmt: skip
    write_json(folder / "val_qa.json", val)
    for video, seconds in ((6513, 7), (6514, 2), (6515, 12), (6516, 28)):
        write_video(folder / f"video/video{video}.mp4", seconds, sound=video != 6515)
    return folder


def star_record(key: str, question: str, choices: Sequence[str], answer: str | None, video: str) -> dict[str, Any]:
    listed = [{"choice": text, "choice_id": 3 - i, "choice_program": []} for i, text in enumerate(choices)]
    record = {"question_id": key, "question": question, "video_id": video, "start": 1.1, "end": 9.6, "choices": listed}
    return record | ({} if answer is None else {"answer": answer})


def star_folder(folder: Path) -> Path:
    """Two videos of 10 s, AAAAA and BBBBB (without sound), with six questions. The choices' ids run from 3 to 0."""
    folder.mkdir(parents=True, exist_ok=True)
    objects, actions = ["The bag.", "The book.", "The door.", "The bed."], ["Took.", "Closed.", "Held.", "Threw."]
    asked = [
        ("Interaction_T1_1", "Which object was taken by the person?", objects, "The book.", "AAAAA"),
        ("Interaction_T2_2", "What did the person do with the door?", actions, "Closed.", "AAAAA"),
        ("Sequence_T1_3", "Which object did the person take after they closed the door?", objects, "The bag.", "BBBBB"),
        ("Prediction_T3_4", "Which object would the person take next?", objects, "The bed.", "BBBBB"),
        ("Feasibility_T1_5", "Which other object is possible to be held by the person?", objects, "The bag.", "AAAAA"),
        ("Interaction_T1_6", "Which object was held by the person?", objects, "The bag.", "BBBBB"),
    ]
    write_json(folder / "STAR_val.json", [star_record(*row) for row in asked])
    write_json(folder / "STAR_test.json", [star_record(*row[:3], None, row[4]) for row in asked])
    for video in ("AAAAA", "BBBBB"):
        write_video(folder / f"Charades_v1_480/{video}.mp4", 10, sound=video == "AAAAA")
    return folder


def lsmdc_folder(folder: Path, *, header: bool = False) -> Path:
    """Two clips of 3 and 9 s with five questions, of which one has no blank and one has two."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {3: "0001_A_Film_00.00.10.000-00.00.13.000", 9: "0001_A_Film_00.01.00.000-00.01.09.000"}
    asked = [
        (3, "SOMEONE _____ the door.", "opens"),
        (3, "SOMEONE opens the _____.", "door"),
        (9, "SOMEONE opens the door.", "door"),
        (9, "He _____ and _____.", "walks"),
        (9, 'He "_____" away.', "Walks"),
    ]

    def rows(questions):
        for seconds, question, answer in questions:
            times = ["00.00.10.000", "00.00.13.000"] * 2
            yield [clips[seconds], *times, question.replace("_____", answer), question, answer]

    names = ["video_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence", "question"]
    train = [(3, "_____", word) for word in ("door", "door", "walks", "opens", "opens", "Door")]
    for split, questions in (("training", train), ("val", asked), ("test", asked[:2])):
        table = [[*names, "answer"], *rows(questions)] if header else list(rows(questions))
        text = "".join("\t".join(row) + "\n" for row in table)
        (folder / f"LSMDC16_annos_{split}_FIB.csv").write_text(text)
    for seconds, name in clips.items():
        write_video(folder / f"videos/0001_A_Film/{name}.avi", seconds)
    return folder
