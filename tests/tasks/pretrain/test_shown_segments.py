"""A segment is shown as it is in the data set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from reserve.tasks.pretrain.pictures import clip_uri, frame_uri
from reserve.tasks.pretrain.shown_segments import SegmentLookup, choose_segments, shown_segments
from tests.helpers.random_rankings import evaluate_at_random
from tests.helpers.small_stores import DATA, WORDS_PER_SEGMENT, segment_words, vocabulary

A = DATA.num_audio_subsegments


@pytest.fixture(scope="module")
def held_out(dataset, evaluation) -> SegmentLookup:
    return SegmentLookup(dataset, evaluation.rankings)


@pytest.fixture(scope="module")
def views(held_out, evaluation):
    """Every segment with a masked sound, by (example, segment)."""
    chosen = choose_segments(evaluation.rankings, A, count=100)
    return {place: held_out.segment(*place) for place in chosen}


def number(dataset, example, segment) -> int:
    video, index = dataset.plans[example][1].segments[segment]
    return video * 8 + index


def test_segments_are_chosen_evenly_and_not_by_their_results(dataset, evaluation):
    chosen = choose_segments(evaluation.rankings, A)
    assert len(chosen) == len(set(chosen)) == 6
    assert len({example for example, _ in chosen}) >= 5
    assert chosen == choose_segments(evaluate_at_random(dataset, right=True).rankings, A)
    assert choose_segments(evaluation.rankings, A, count=2) != chosen[:2]


def test_without_masked_sounds_any_segment_is_shown(evaluation):
    frames, sounds, spans = evaluation.rankings
    nothing = {f: getattr(sounds, f)[:0] for f in ("truth", "true_score", "above", "tied", "guesses", "guess_scores")}
    silent = [frames, replace(sounds, **nothing), spans]
    assert len(choose_segments(silent, A)) == 6


def test_a_segment_shows_its_own_frame_video_and_time(dataset, views):
    for (example, segment), view in views.items():
        video, index = dataset.plans[example][1].segments[segment]
        assert (view.video, view.start, view.playback_speed) == (f"video-{video}.mp4", 5.0 * index, 1)
        assert view.frame == frame_uri(dataset[0, example].images[segment])
        assert view.frame_answer.truth.picture == view.frame
        assert view.frame_answer.truth.is_true


def test_the_gaps_filled_with_the_true_words_give_the_transcript(views):
    """In both streams, visible text and true words of the masks follow in spoken order."""
    place = {word: index for index, word in enumerate(vocabulary())}
    for view in views.values():
        for transcript in view.transcripts:
            spoken = []
            for piece in transcript.pieces:
                answer = transcript.answers.get(piece.number)
                spoken += (answer.truth.text if answer else piece.text).split()
            order = [place[word] for word in spoken]
            assert order == sorted(order)
            if transcript.stream == "text2audio" and not any(p.kind == "mask" and p.outside for p in transcript.pieces):
                assert order == list(range(order[0], order[0] + len(order)))


def test_words_are_marked_as_before_or_after_the_segment(dataset, views):
    for (example, segment), view in views.items():
        own = set(segment_words(number(dataset, example, segment)))
        pieces = view.transcripts[0].pieces
        inside = " ".join(piece.text for piece in pieces if not piece.outside).split()
        # text2audio moves single words across segment bounds.
        assert len(set(inside) - own) <= 2
        assert len(" ".join(piece.text for piece in pieces if piece.outside).split()) <= 2 * WORDS_PER_SEGMENT


def test_masks_are_numbered_and_answered(views):
    for view in views.values():
        assert view.transcripts[0].stream == "text2audio"
        assert view.sound_answers
        for transcript in view.transcripts:
            numbers = [piece.number for piece in transcript.pieces if piece.kind == "mask" and not piece.outside]
            assert numbers == list(range(1, len(numbers) + 1))
            assert sorted(transcript.answers) == numbers
            assert numbers
            assert not any(piece.number for piece in transcript.pieces if piece.kind != "mask" or piece.outside)


def test_a_masked_sound_is_where_its_words_are(dataset, views):
    for (example, segment), view in views.items():
        texts = [answer.truth.text for answer in view.transcripts[0].answers.values()]
        assert [answer.truth.text for answer in view.sound_answers] == texts
        clips = dataset[0, example].audio_clips[segment * A : (segment + 1) * A, :, :-1]
        assert all(answer.truth.picture in {clip_uri(clip) for clip in clips} for answer in view.sound_answers)


def test_guesses_are_the_candidates_they_name(dataset, evaluation, held_out):
    """A guess has the words and picture of its place, and the score and rank of the ranking."""
    for ranking in evaluation.rankings:
        for query in range(0, len(ranking.truth), 5):
            answer = held_out.answer(ranking.name, *ranking.places[ranking.truth[query]].tolist())
            assert answer.rank == ranking.above[query] + 1
            assert answer.candidates == ranking.candidates
            assert [g.score for g in answer.guesses] == ranking.guess_scores[query][: len(answer.guesses)].tolist()
            assert [g.is_true for g in answer.guesses] == [
                candidate == ranking.truth[query] for candidate in ranking.guesses[query][: len(answer.guesses)]
            ]
            for guess, candidate in zip(answer.guesses, ranking.guesses[query], strict=False):
                assert_is_at(guess, dataset, ranking.name, *ranking.places[candidate].tolist())


def assert_is_at(guess, dataset, problem, example, place):
    item = dataset[0, example]
    if problem == "imgs_to_audio":
        assert guess.picture == frame_uri(item.images[place])
    elif problem == "text_to_audio":
        assert guess.picture == clip_uri(item.audio_clips[place, :, :-1])
        spoken = guess.text.split()
        segment = place // A
        near = [
            word
            for s in range(max(segment - 1, 0), min(segment + 2, 4))
            for word in segment_words(number(dataset, example, s))
        ]
        assert spoken == [word for word in near if word in spoken]
    else:
        ids = item.text.text_spans[place]
        assert guess.text == dataset.tokenizer.decode(ids[ids > 0]).strip()


def test_right_predictions_are_shown_as_right(dataset):
    evaluation = evaluate_at_random(dataset, right=True)
    view = SegmentLookup(dataset, evaluation.rankings).segment(*choose_segments(evaluation.rankings, A)[0])
    answers = [view.frame_answer, *view.sound_answers, *view.transcripts[0].answers.values()]
    assert all(answer.rank == 1 and answer.guesses[0].is_true for answer in answers)
    assert all(answer.guesses[0] == answer.truth for answer in answers)
    assert not any(guess.is_true for answer in answers for guess in answer.guesses[1:])


def test_audio2text_contains_sounds(views):
    kinds = {p.kind for view in views.values() for t in view.transcripts if t.stream == "audio2text" for p in t.pieces}
    assert kinds == {"sound", "mask", "text"}
    for view in views.values():
        sounds = [p for t in view.transcripts for p in t.pieces if p.kind == "sound"]
        assert np.all([not piece.text for piece in sounds])


def test_what_is_stored_says_of_which_evaluation_it_is(dataset, evaluation, views):
    shown = shown_segments(250, dataset, evaluation.rankings)
    assert (shown.step, shown.videos) == (250, 3)
    assert shown.segments == [views[place] for place in choose_segments(evaluation.rankings, A)]


def test_details_are_json_also_of_scores_that_are_not_finite(dataset):
    details = evaluate_at_random(dataset, value=float("nan")).details()
    scores = [guess["score"] for segment in details["segments"] for guess in segment["frame_answer"]["guesses"]]
    assert scores
    assert set(scores) == {None}
    assert json.loads(json.dumps(details, allow_nan=False))["step"] == 250
