"""Ask a model about videos of `reserve demo-data` and search them, with what is true beside what it says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.cli.asked_model import add_model_arguments, check_model_arguments, load_asked_model
from reserve.cli.search import default_index

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.cli.asked_model import AskedModel
    from reserve.synthetic.datasets.scenes import Story, TimedScene
    from reserve.synthetic.scene_questions import SceneQuestion
    from reserve.synthetic.story import Scene
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
    import numpy as np

    from reserve.synthetic.scene_questions import CHOICES, scene_questions
    from reserve.tasks.scores import mean_score

    right: list[bool] = []
    groups: list[int] = []
    for number, story in enumerate(stories):
        for question in scene_questions(story, seed):
            answers = _ask(story, question, asked_model)
            right.append(answers.ranked[0].text == question.right)
            groups.append(number)
            if number == 0:
                print(f"{story.path}, what is {question.kind}\n{_marked(str(answers), question)}\n", flush=True)
    score = mean_score("right", np.array(right), groups=np.array(groups), chance=1 / CHOICES)
    print(
        f"Such questions about all {len(stories)} videos: {sum(right)} of {len(right)} right, {score.value:.1%} "
        f"(95% interval {score.low:.1%} to {score.high:.1%}; chance {1 / CHOICES:.0%})\n"
    )


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


def _search(stories: Sequence[Story], folder: Path, asked_model: AskedModel, *, mirror: bool) -> None:
    """Shows the moments that fit a phrase best, with the scenes that they lie in, and how often such searches find the
    scenes that they are after."""
    from reserve.synthetic.narration import describe
    from reserve.synthetic.scene_questions import phrase_of
    from reserve.tasks.search import MomentIndex, build_index

    model, tokenizer, config = asked_model
    by_path = {os.path.abspath(story.path): story for story in stories}
    build_index(list(by_path), folder, model, config=config, mirror=mirror)
    index = MomentIndex.open(folder)

    def moments_of(scene: Scene, videos: Container[str], count: int) -> list[tuple[Moment, TimedScene]]:
        """The best moments of some videos for the phrase of a scene, and what they show."""
        phrase = phrase_of(scene)
        found = _of_videos(videos, count, lambda k: index.search_text(phrase, k, model=model, tokenizer=tokenizer))
        return [(moment, by_path[moment.video].scene_at((moment.start + moment.end) / 2)) for moment in found]

    first = stories[0].usual_scenes[0].scene
    print(f'Moments for "{phrase_of(first)}" in all {len(stories)} videos:')
    for moment, shown in moments_of(first, by_path, MOMENTS):
        where = f"{by_path[moment.video].path}, {moment.start:.1f} to {moment.end:.1f} s"
        print(f"  {moment.score:.3f}  {where}, which shows {describe(shown.scene)}")
    by_phrase = {phrase_of(timed.scene): timed.scene for story in stories for timed in story.usual_scenes}
    found = {
        phrase: [shown.scene for _, shown in moments_of(scene, by_path, MOMENTS)] for phrase, scene in by_phrase.items()
    }
    print("\n" + _found_by_phrase(stories, by_phrase, found))
    in_own = [
        (story, timed, *moments_of(timed.scene, {path}, 1)[0])
        for path, story in by_path.items()
        for timed in story.usual_scenes
    ]
    print(f"\nIn {stories[0].path} alone:")
    for _, wanted, moment, shown in in_own[:MOMENTS]:
        right = "   <- true" if shown == wanted else ""
        print(f'  {moment.score:.3f}  {moment.start:.1f} to {moment.end:.1f} s for "{phrase_of(wanted.scene)}"{right}')
    print("\n" + _found_in_own_video([(story, wanted, shown) for story, wanted, _, shown in in_own]))


def _found_by_phrase(
    stories: Sequence[Story], wanted: Mapping[str, Scene], found: Mapping[str, Sequence[Scene]]
) -> str:
    """How many phrases one of the moments found shows, and how many of the moments show the phrase's colour; chance is
    that of moments at random times.

    `wanted` are scenes by the phrase that describes them, `found` the scenes of the moments.
    """
    from reserve.synthetic.scene_questions import phrase_of

    seconds: dict[str, float] = defaultdict(float)
    for story in stories:
        for timed in story.scenes:
            for name in (phrase_of(timed.scene), timed.scene.colour):
                seconds[name] += timed.end - timed.start
    total = sum(timed.end - timed.start for story in stories for timed in story.scenes)
    shown = sum(any(phrase_of(scene) == phrase for scene in scenes) for phrase, scenes in found.items())
    by_chance = sum(1 - (1 - seconds[phrase] / total) ** len(scenes) for phrase, scenes in found.items())
    colours = [scene.colour == wanted[phrase].colour for phrase, scenes in found.items() for scene in scenes]
    of_colour = sum(seconds[wanted[phrase].colour] / total for phrase, scenes in found.items() for _ in scenes)
    return (
        f"Such searches for {len(wanted)} phrases: for {shown} ({shown / len(wanted):.1%}; chance "
        f"{by_chance / len(wanted):.1%}) one of the first {MOMENTS} moments shows it;\n"
        f"{sum(colours) / len(colours):.1%} of the moments show its colour (chance {of_colour / len(colours):.1%})"
    )


def _found_in_own_video(found: Sequence[tuple[Story, TimedScene, TimedScene]]) -> str:
    """How often a search of a video alone finds the scene that it is after; chance is that of a random time.

    `found` are videos, the scenes searched for, and the scenes that the best moments show.
    """
    right = sum(shown == wanted for _, wanted, shown in found)
    by_chance = sum((wanted.end - wanted.start) / story.scenes[-1].end for story, wanted, _ in found)
    return (
        f"Searching each video alone, the first moment is in the scene searched for in {right} of {len(found)} "
        f"({right / len(found):.1%}; chance {by_chance / len(found):.1%})"
    )


def _of_videos(videos: Container[str], count: int, search: Callable[[int], list[Moment]]) -> list[Moment]:
    """The `count` best moments of some videos of an index; `search` gives as many of all videos as it is asked for."""
    most = count
    while True:
        found = search(most)
        own = [moment for moment in found if moment.video in videos][:count]
        if len(own) == count or len(found) < most:
            return own
        most *= 4
