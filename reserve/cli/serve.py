"""Show a page in the browser where people ask and search videos, their own or those of a folder."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.cli.asked_model import add_model_arguments, check_model_arguments, load_asked_model
from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("--videos", type=Path, help="a folder of videos to show, only read; links out of it are not")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where uploads and indexes are stored; by default serve in the user's cache folder of reserve",
    )
    parser.add_argument("--host", type=str, default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--names", type=str, nargs="+", default=[], help="host names in browsers, besides localhost and addresses"
    )
    parser.add_argument("--upload_mb", type=int, default=512, help="the most for one uploaded video")
    parser.add_argument("--storage_mb", type=int, default=8192, help="the most for all that --folder holds")
    parser.add_argument("--waiting", type=int, default=8, help="requests that may wait for the model")
    add_model_arguments(parser)


def run(options: Namespace) -> None:
    from reserve.serve.limits import MEGABYTE, Limits
    from reserve.serve.server import bind, is_loopback, serve

    try:
        limits = Limits(
            upload_bytes=options.upload_mb * MEGABYTE,
            folder_bytes=options.storage_mb * MEGABYTE,
            waiting=options.waiting,
        )
    except ValueError as error:
        raise UsageError(f"--upload_mb, --storage_mb and --waiting: {error}") from error
    check_model_arguments(options)
    # All that can be wrong is found before the weights are loaded, missing packages too.
    import uvicorn  # noqa: F401

    from reserve.data.shards.files import user_cache
    from reserve.serve.app import make_app
    from reserve.serve.model_answering import ModelAnswering
    from reserve.serve.uploads import Storage
    from reserve.serve.video_files import FolderVideos
    from reserve.serve.worker import Worker
    from reserve.tasks.search.engine import load_faiss

    load_faiss()
    videos = None if options.videos is None else FolderVideos(options.videos)
    folder = options.folder or user_cache().with_name("serve")
    if videos is not None:
        _check_apart(folder.resolve(), videos.folder)
    with bind(options.host, options.port) as listening, closing(Storage(folder, limits)) as storage:
        answering, worker = ModelAnswering(*load_asked_model(options)), Worker(limits.waiting)
        app = make_app(answering, worker, storage, videos=videos, names=options.names)
        if not is_loopback(options.host):
            logger.warning(
                "anyone who reaches %s can upload videos, and watch and delete what is there; an SSH tunnel to "
                "127.0.0.1 is safer",
                options.host,
            )
        logger.info("%s  (Ctrl-C stops; uploads are stored in %s)", address(listening), storage.uploads)
        serve(app, listening, worker.end)


def _check_apart(folder: Path, videos: Path) -> None:
    """Raises UsageError where what the server stores would be listed among the videos, or these lie in its folder."""
    inside = folder.is_relative_to(videos) and not any(
        part.startswith(".") for part in folder.relative_to(videos).parts
    )  # hidden folders are not listed
    if inside or videos.is_relative_to(folder):
        raise UsageError(f"--folder {folder} and --videos {videos} must not lie in each other")


def address(listening: socket.socket) -> str:
    """The page's URL."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
