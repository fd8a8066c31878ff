from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reserve.batch.vocabulary import MASK, PAD
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.tasks.vcr.dataset import VcrDataset, VcrSettings, choice_sequences, collate
from tests.helpers.vcr_folder import SIZES, question

TOKENIZER = Tokenizer.load()
LENGTH = 40


def dataset(folder, split="train", *, length=LENGTH, **options):
    return VcrDataset(folder, split, TOKENIZER, VcrSettings(lang_seq_len=length), SIZES, **options)


def text(ids):
    """The words of a sequence, without the lone space that the prefix ends in."""
    return " ".join(TOKENIZER.decode(ids[ids != PAD]).split())


def test_a_sequence_is_query_prefix_choice_and_mask(vcr_folder):
    example = dataset(vcr_folder)[0, 2]  # whose right choice is the third
    assert example.sequences.shape == (2, 4, LENGTH)
    assert text(example.sequences[0, 2]) == "what does person 1 and person 2 see? answer: it is red.<|MASK|>"
    rationale = "what does person 1 and person 2 see? answer: it is red. rationale: person 2 wears white.<|MASK|>"
    assert text(example.sequences[1, 1]) == rationale
    assert example.labels.tolist() == [2, 2]


def test_without_labels_rationales_are_asked_for_every_answer(vcr_folder):
    example = dataset(vcr_folder, "test")[0, 0]
    assert example.sequences.shape == (5, 4, LENGTH)
    assert example.labels.tolist() == [-1] * 5
    for answer, colour in enumerate(("red", "green", "blue", "white")):
        assert f"answer: it is {colour}. rationale:" in text(example.sequences[1 + answer, 3])


def test_long_sequences_keep_their_mask():
    ids = choice_sequences(range(10, 20), [range(20, 30), [20]], 16)
    assert ids.tolist() == [[*range(10, 25), MASK], [*range(10, 21), MASK, PAD, PAD, PAD, PAD]]


def test_special_tokens_that_a_text_spells_are_dropped(changed_folder):
    record = question(0, "val", 0) | {"question": ["What", "is", "<|MASK|>", "?"]}
    (changed_folder / "val.jsonl").write_text(json.dumps(record) + "\n")
    sequences = dataset(changed_folder, "val")[0, 0].sequences
    assert ((sequences == MASK).sum(-1) == 1).all()


def test_an_example_is_a_function_of_its_key(vcr_folder):
    one, other = (dataset(vcr_folder, training=True, seed=3) for _ in range(2))
    for key in ((0, 0), (1, 0), (0, 3)):
        assert np.array_equal(one[key].image, other[key].image)
    assert not np.array_equal(one[0, 0].image, one[1, 0].image)
    evaluated = dataset(vcr_folder)
    assert np.array_equal(evaluated[0, 0].image, evaluated[5, 0].image)


def pictures(folder, **options):
    """Training pictures of one question in several epochs at their own size, neither resized nor cropped."""
    made = VcrDataset(
        folder,
        "train",
        TOKENIZER,
        VcrSettings(random_scale_min=1.0, random_scale_max=1.0),
        replace(SIZES, output_grid=(6, 8)),
        training=True,
        **options,
    )
    return [made[epoch, 0].image for epoch in range(16)]


def dark_on_the_left(image):
    return bool(image[:, :10].mean() < image[:, -10:].mean())


@pytest.fixture
def half_dark(changed_folder):
    """The first training picture is black on its left, where its first box lies."""
    pixels = np.full((96, 128, 3), 200, np.uint8)
    pixels[:, :64] = 0
    Image.fromarray(pixels).save(changed_folder / "vcr1images" / "movie" / "train_0.jpg", quality=95)
    return changed_folder


def test_mirrored_pictures_are_mirrored_whole(half_dark):
    plain, turned = (
        next(image for image in pictures(half_dark) if dark_on_the_left(image) is left) for left in (True, False)
    )
    # But for the rounding of JPEG files.
    assert np.abs(plain - turned[:, ::-1]).mean() < 0.01


def test_as_released_only_the_boxes_are_mirrored(half_dark):
    images = pictures(half_dark, as_released=True)
    assert all(map(dark_on_the_left, images))
    # The first box begins at column 10, mirrored at 128 - 40.
    outlined = {bool(image[50, 10].max() > 0.3) for image in images}
    assert outlined == {True, False}


def test_pictures_are_not_mirrored_where_a_text_names_a_side(half_dark):
    record = question(0, "train", 0) | {"question": ["Who", "is", "left", "of", [0], "?"]}
    (half_dark / "train.jsonl").write_text(json.dumps(record) + "\n")
    assert all(map(dark_on_the_left, pictures(half_dark)))


def test_a_side_in_the_name_of_an_object_counts(half_dark):
    path = half_dark / "vcr1images" / "movie" / "train_0.json"
    metadata = json.loads(path.read_text()) | {"names": ["right hand", "person", "dog"]}
    path.write_text(json.dumps(metadata))
    assert all(map(dark_on_the_left, pictures(half_dark)))


def test_a_batch_shares_each_picture_among_its_sequences(vcr_folder):
    batch = collate([dataset(vcr_folder)[0, index] for index in (1, 2)], SIZES)
    assert batch.images.shape == (2, 32, 64, 3)
    assert batch.labels.tolist() == [[1, 1], [2, 2]]
    cells = SIZES.pooled_grid[0] * SIZES.pooled_grid[1]
    assert len(batch.joint.image_index) == 16 * cells
    assert int(batch.joint.image_index.max()) == 2 * cells - 1
    assert len(batch.joint.cu_seqlens) == 17
    assert len(batch.rows) == 16
    assert batch.audio_clips is None


def test_a_damaged_picture_is_named(changed_folder):
    path = changed_folder / "vcr1images" / "movie" / "train_1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadInput, match=r"train_1.jpg is not a complete picture"):
        dataset(changed_folder)[0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lang_seq_len": 1}, "examples.lang_seq_len must be at least 2; got 1"),
        ({"random_scale_min": 0.0}, "examples.random_scale_min must be above 0"),
        ({"random_scale_min": 1.2}, "examples.random_scale_min must be above 0 and at most examples.random_scale_max"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        VcrSettings(**settings)
