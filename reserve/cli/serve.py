"""Show a page in the browser where people ask and search videos, their own or those of a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument(
        "--weights", type=str, required=True, help="a run, a folder, a hub id, or an official checkpoint with --sizes"
    )
    parser.add_argument(
        "--sizes", type=str, help="of official weights: base_resadapt, large_resadapt, base, large or a YAML file"
    )
    parser.add_argument("--tokenizer", type=Path, help="the vocabulary of the weights; by default this package's")
    parser.add_argument("--videos", type=Path, help="a folder of videos to show, only read; links out of it are not")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where uploads and indexes are stored; by default serve in the user's cache folder of reserve",
    )
    parser.add_argument("--host", type=str, default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--names", type=list[str], default=[], help="host names in browsers, besides localhost and addresses"
    )
    parser.add_argument("--upload_mb", type=int, default=512, help="the most for one uploaded video")
    parser.add_argument("--storage_mb", type=int, default=8192, help="the most for all that --folder holds")
    parser.add_argument("--waiting", type=int, default=8, help="requests that may wait for the model")
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "float32", "bfloat16"],
        default="auto",
        help="of activations; auto is bfloat16 where the device has it",
    )


def run(options: Namespace) -> None:
    from reserve.serve.app import make_app
    from reserve.serve.limits import MEGABYTE, Limits
    from reserve.serve.server import bind, is_loopback, serve
    from reserve.serve.uploads import Storage
    from reserve.serve.video_files import FolderVideos

    try:
        limits = Limits(
            upload_bytes=options.upload_mb * MEGABYTE,
            folder_bytes=options.storage_mb * MEGABYTE,
            waiting=options.waiting,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    # Fail fast: before the weights are loaded.
    videos = None if options.videos is None else FolderVideos(options.videos)
    storage = Storage(options.folder or _default_folder(), limits)
    with bind(options.host, options.port) as listening:
        answering = _answering(options)
        if not is_loopback(options.host):
            logger.warning(
                "anyone who reaches %s can upload videos and watch all that are listed; an SSH tunnel to 127.0.0.1 is "
                "safer",
                options.host,
            )
        app = make_app(answering, storage, videos=videos, names=options.names)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        logger.info("http://%s:%d/  (Ctrl-C stops; uploads are in %s)", shown, port, storage.uploads)
        serve(app, listening)
