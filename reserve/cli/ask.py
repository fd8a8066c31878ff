"""Ask a question about a video: ranks the answers given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reserve.cli.asked_model import add_model_arguments, check_model_arguments, load_asked_model
from reserve.errors import UsageError
from reserve.terminal import printable_lines

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("video", type=str, help="the video file")
    parser.add_argument(
        "question", type=str, help='a statement with <|MASK|> or _ in the place of the answer: "a man is <|MASK|>."'
    )
    parser.add_argument("--answers", type=str, nargs="+", help="two or more texts to choose among")
    parser.add_argument("--start", type=float, default=0.0, help="second where reading starts")
    parser.add_argument("--stop", type=float, help="second where it ends; by default the end of the video")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_arguments(parser)


def run(options: Namespace) -> None:
    if not options.answers or len(options.answers) < 2:
        raise UsageError("ask needs --answers, two or more to choose among")
    if options.start < 0 or (options.stop is not None and options.stop <= options.start):
        raise UsageError(f"--start must be at least 0 and --stop after it; got {options.start} and {options.stop}")
    check_model_arguments(options)
    from reserve.data.video import open_video
    from reserve.model.precision import autocast
    from reserve.tasks.ask import CheckedQuestion, ask_checked

    video = open_video(options.video)  # before the weights, which take longer
    model, tokenizer, config = load_asked_model(options)
    try:
        asked = CheckedQuestion.of(options.question, options.answers, tokenizer, model.config)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with autocast(config, model.device):
        answers = ask_checked(video, asked, model, tokenizer, start=options.start, stop=options.stop)
    if options.json:
        print(json.dumps({"video": options.video, **answers.to_json()}, indent=1, allow_nan=False))
    else:
        print(printable_lines(str(answers)))
