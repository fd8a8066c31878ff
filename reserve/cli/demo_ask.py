"""Ask a model about videos of `reserve demo-data` and search them, with what is true beside what it says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reserve.cli.asked_model import add_model_arguments, check_model_arguments, load_asked_model
from reserve.cli.search import default_index
from reserve.errors import BadInput

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.cli.asked_model import AskedModel
    from reserve.synthetic.datasets.scenes import Story, TimedScene
    from reserve.synthetic.scene_questions import SceneQuestion
    from reserve.tasks.ask import Answers
    from reserve.tasks.search import Moment

MOMENTS = 3


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("videos", type=Path, help="the folder train or heldout that `reserve demo-data` has made")
    parser.add_argument(
        "--index", type=Path, help="folder for the index of moments; by default one in the user's cache"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which scenes are asked about")
    add_model_arguments(parser)


def run(options: Namespace) -> None:
    from reserve.synthetic.datasets.scenes import read_folder

    check_model_arguments(options)
    stories = read_folder(options.videos)
    asked_model = load_asked_model(options)
    _ask_all(stories, options.seed, asked_model)
    places = [str(story.path) for story in stories]
    if options.index is None:
        _search(stories, default_index(places, asked_model.model), asked_model, mirror=True)
    else:  # which may hold other videos too
        _search(stories, options.index, asked_model, mirror=False)


def _ask_all(stories: Sequence[Story], seed: int, asked_model: AskedModel) -> None:
    """Shows the answers to the questions about the first video, and how many of those about all videos are right."""
    from reserve.synthetic.scene_questions import CHOICES, scene_questions

    right: list[bool] = []
    videos: list[int] = []
    for number, story in enumerate(stories):
        for question in scene_questions(story, seed):
            answers = _ask(story, question, asked_model)
            right.append(answers.ranked[0].text == question.right)
            videos.append(number)
            if number == 0:
                print(f"{story.path}, what is {question.kind}\n{_marked(str(answers), question)}\n", flush=True)
    print(f"Such questions about all {len(stories)} videos: {_share(videos, right, [1 / CHOICES] * len(right))}\n")


def _ask(story: Story, question: SceneQuestion, asked_model: AskedModel) -> Answers:
    from reserve.model.precision import autocast
    from reserve.tasks.ask import ask

    model, tokenizer, config = asked_model
    with autocast(config, model.device):
        return ask(
            *(story.path, question.text, question.answers),
            model=model,
            tokenizer=tokenizer,
            start=question.start,
            stop=question.end,
        )


def _marked(table: str, question: SceneQuestion) -> str:
    """The table with a mark at the answer that is true."""
    return "\n".join(
        f"{line}   <- true" if f"  {question.right}  " in f"{line}  " else line for line in table.splitlines()
    )


class Shown(NamedTuple):
    """A moment found, the number of its video, and the scene that it shows."""

    moment: Moment
    video: int
    timed: TimedScene


def _search(stories: Sequence[Story], folder: Path, asked_model: AskedModel, *, mirror: bool) -> None:
    """Shows the moments that fit a phrase best, with the scenes that they lie in, and how often such searches find the
    scenes that they are after."""
    from reserve.synthetic.narration import describe
    from reserve.synthetic.scene_questions import phrase_of
    from reserve.tasks.search import MomentIndex, build_index

    model, tokenizer, config = asked_model
    numbers = {os.path.abspath(story.path): number for number, story in enumerate(stories)}
    report = build_index(list(numbers), folder, model, config=config, mirror=mirror)
    if report.skipped:
        raise BadInput("the index lacks videos: " + "; ".join(report.skipped))
    index = MomentIndex.open(folder)

    @cache
    def found(phrase: str) -> list[Shown]:
        """All moments of the stories, best first; the index may have other videos too."""
        moments = index.search_text(phrase, len(index), model=model, tokenizer=tokenizer)
        own = [(moment, numbers[moment.video]) for moment in moments if moment.video in numbers]
        return [Shown(m, number, stories[number].scene_at((m.start + m.end) / 2)) for m, number in own]

    wanted = [(number, timed) for number, story in enumerate(stories) for timed in story.usual_scenes]
    first = phrase_of(wanted[0][1].scene)
    print(f'Moments for "{first}" in all {len(stories)} videos:')
    for moment, number, timed in found(first)[:MOMENTS]:
        where = f"{stories[number].path}, {moment.start:.1f} to {moment.end:.1f} s"
        print(f"  {moment.score:.3f}  {where}, which shows {describe(timed.scene)}")
    in_all = [found(phrase_of(timed.scene))[:MOMENTS] for _, timed in wanted]
    print("\n" + _found_in_all(stories, wanted, in_all))
    in_own = [next(one for one in found(phrase_of(timed.scene)) if one.video == video) for video, timed in wanted]
    print(f"\nIn {stories[0].path} alone:")
    for (_, timed), (moment, _, shown) in list(zip(wanted, in_own, strict=True))[:MOMENTS]:
        mark = "   <- true" if shown == timed else ""
        print(f'  {moment.score:.3f}  {moment.start:.1f} to {moment.end:.1f} s for "{phrase_of(timed.scene)}"{mark}')
    print("\n" + _found_in_own(stories, wanted, in_own))


Wanted = Sequence[tuple[int, "TimedScene"]]
"""Scenes that are searched for by their phrases, and the numbers of their videos."""


def _found_in_all(stories: Sequence[Story], wanted: Wanted, found: Sequence[Sequence[Shown]]) -> str:
    """How often one of the moments `found` in all videos shows what is searched for, and its colour; by chance, as
    moments at random times would."""
    from reserve.synthetic.scene_questions import phrase_of

    seconds: dict[str, float] = defaultdict(float)
    for story in stories:
        for timed in story.scenes:
            for name in (phrase_of(timed.scene), timed.scene.colour, "any"):
                seconds[name] += timed.end - timed.start
    lines = []
    for named, subject in (
        (phrase_of, "the thing searched for"),
        (lambda scene: scene.colour, "a thing of its colour"),
    ):
        names = [named(timed.scene) for _, timed in wanted]
        right = [any(named(one.timed.scene) == name for one in shown) for name, shown in zip(names, found, strict=True)]
        random = [1 - (1 - seconds[name] / seconds["any"]) ** MOMENTS for name in names]
        lines.append(f"  {subject}: {_share([video for video, _ in wanted], right, random)}")
    return f"In such searches for all scenes, one of the first {MOMENTS} moments shows\n" + "\n".join(lines)


def _found_in_own(stories: Sequence[Story], wanted: Wanted, found: Sequence[Shown]) -> str:
    """How often the best moment of a video is in the scene searched for; by chance, as a random time would be."""
    right = [one.timed == timed for (_, timed), one in zip(wanted, found, strict=True)]
    random = [(timed.end - timed.start) / stories[video].scenes[-1].end for video, timed in wanted]
    return (
        "Searching each video alone, the first moment is in the scene searched for:\n  "
        f"{_share([video for video, _ in wanted], right, random)}"
    )


def _share(videos: Sequence[int], right: Sequence[bool], random: Sequence[float]) -> str:
    """How many of some cases about `videos` are right, with the interval over videos; `random` has each case's
    probability by chance."""
    import numpy as np

    from reserve.tasks.scores import mean_score

    score = mean_score("right", np.array(right), groups=np.array(videos))
    interval = f"95% interval {score.low:.1%} to {score.high:.1%}; " if score.low == score.low else ""
    return f"{sum(right)} of {len(right)} right, {score.value:.1%} ({interval}chance {np.mean(random):.1%})"
