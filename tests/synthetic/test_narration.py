import random

import pytest

from reserve.data.tokenizer import Tokenizer
from reserve.synthetic.narration import describe, narrate, plural, third_person, vocabulary
from reserve.synthetic.story import Scene, plan_story, story_rng


def narrations(stories: int) -> list[tuple[Scene, list[str]]]:
    spoken = []
    for index in range(stories):
        rng = story_rng(0, "train", index, "words")
        spoken += [(scene, narrate(scene, rng)) for scene in plan_story(0, "train", index, 14)]
    return spoken


def words_of(text: str) -> list[str]:
    return text.replace(",", "").lower().split()


def test_narrations_use_several_hundred_words():
    spoken = {word for _, sentences in narrations(40) for sentence in sentences for word in words_of(sentence)}
    assert len(spoken) >= 300
    assert spoken <= vocabulary()


def test_every_sentence_names_the_colour_or_the_shape():
    for scene, sentences in narrations(10):
        for sentence in sentences:
            words = words_of(sentence)
            assert {scene.colour, scene.shape, plural(scene.shape)} & set(words), sentence


def test_every_scene_is_described_in_full():
    for scene, sentences in narrations(10):
        words = words_of(" ".join(sentences))
        assert scene.colour in words
        assert {scene.shape, plural(scene.shape)} & set(words)
        assert scene.place in words
        assert {"one", "two", "three"} & set(words)


def test_sentences_take_about_two_seconds():
    lengths = [len(words_of(sentence)) for _, sentences in narrations(10) for sentence in sentences]
    assert min(lengths) >= 3
    assert max(lengths) <= 9


def test_a_narration_depends_only_on_the_generator():
    scene = Scene("red", "star", 2, "left", "beach")
    assert narrate(scene, random.Random(5)) == narrate(scene, random.Random(5))
    assert len({tuple(narrate(scene, random.Random(seed))) for seed in range(20)}) > 15


def test_every_slot_is_filled():
    assert not any("{" in sentence or "}" in sentence for _, sentences in narrations(20) for sentence in sentences)


@pytest.mark.parametrize(
    ("verb", "form"), [("slide", "slides"), ("fly", "flies"), ("buzz", "buzzes"), ("go", "goes"), ("stay", "stays")]
)
def test_third_person(verb, form):
    assert third_person(verb) == form


def test_scenes_have_names():
    assert describe(Scene("red", "cross", 2, "left", "beach")) == "two red crosses at the beach"
    assert describe(Scene("blue", "star", 1, "up", "space")) == "one blue star in space"


def test_every_word_is_a_single_token_of_the_shipped_vocabulary():
    words = sorted(vocabulary())
    ids = Tokenizer.load().encode_words(words)
    assert [word for word, tokens in zip(words, ids, strict=True) if len(tokens) > 1] == []
