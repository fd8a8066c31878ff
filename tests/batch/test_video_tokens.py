from __future__ import annotations

import json

import numpy as np
import pytest

from reserve.batch.video_tokens import video_tokens
from reserve.batch.vocabulary import AUDIOSPAN, MASK

AUDIO = "<audio>"


def recorded_texts(case):
    """The ids of each segment's text, None for sound, from the reference's tokens of the whole sequence."""
    tokens, subsegments = np.array(case["tokens"]), np.array(case["subseg_idxs"])
    return [
        None if text == AUDIO else tokens[subsegments == 3 * number].tolist()
        for number, text in enumerate(case["segments"])
    ]


@pytest.mark.parametrize("name", ["demo", "epic", "msrvtt", "subtitles", "cut"])
def test_the_layout_is_the_references(shared_dir, name):
    case = json.loads((shared_dir / "golden/zero_shot_text.json").read_text())["segment_lists"][name]
    found = video_tokens(recorded_texts(case))
    assert found.ids.tolist() == case["tokens"]
    assert found.subsegments.tolist() == case["subseg_idxs"]


@pytest.mark.parametrize("name", ["anticipate", "mixed", "three", "long", "long_audio", "first"])
def test_lists_of_ids_give_the_references_tokens(shared_dir, name):
    with np.load(shared_dir / "golden/zero_shot.npz") as golden:
        count = len({key.split("/")[1] for key in golden.files if key.startswith(f"{name}/segment_")})
        texts = [
            golden[key] if (key := f"{name}/segment_{number}/text") in golden.files else None for number in range(count)
        ]
        found = video_tokens(texts)
        assert found.ids.tolist() == golden[f"{name}/tokens"].tolist()
        assert found.subsegments.tolist() == golden[f"{name}/subseg_idxs"].tolist()


def test_a_mask_beyond_the_end_is_lost_and_the_rest_is_padded():
    found = video_tokens([[11, 12], None, [13, MASK]], length=21)
    assert found.ids.tolist() == [11, 12, *[AUDIOSPAN] * 18, 13]
    assert found.subsegments.tolist() == [0, 0, *[3] * 6, *[4] * 6, *[5] * 6, 6]
    found = video_tokens([[MASK]], length=3)
    assert (found.ids.tolist(), found.subsegments.tolist()) == ([MASK, 0, 0], [0, -1, -1])


@pytest.mark.parametrize("count", [0, 9])
def test_the_number_of_segments_is_checked(count):
    with pytest.raises(ValueError, match=f"1 to 8 segments; got {count}"):
        video_tokens([[11]] * count)
