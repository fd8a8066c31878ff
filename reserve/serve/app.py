"""The web application: the page, its interface and its rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from reserve.serve.answering import Answering
from reserve.serve.api import Api
from reserve.serve.guard import Guard
from reserve.serve.job_response import message_of
from reserve.serve.uploads import Storage
from reserve.serve.video_files import FolderVideos
from reserve.serve.worker import Worker

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/server.js": ("server.js", "text/javascript"),
    "/timeline.js": ("timeline.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def make_app(
    answering: Answering,
    worker: Worker,
    storage: Storage,
    *,
    videos: FolderVideos | None = None,
    names: Iterable[str] = (),
) -> ASGIApp:
    """The application; when it shuts down it closes `worker`, where the model computes.

    `videos` are shown beside what is uploaded to `storage`. `names` are those by which browsers may reach the server,
    besides localhost and addresses.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()

    pages = [Route(path, partial(_page_file, name, media_type)) for path, (name, media_type) in _FILES.items()]
    app = Starlette(
        routes=[*pages, *Api(answering, worker, storage, videos).routes()],
        exception_handlers={
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            ValueError: _bad_request,
            Exception: _failure,
        },
        lifespan=lifespan,
    )
    return Guard(app, names)  # around all of it: what answers for a failure is outside of Starlette's middleware


async def _page_file(name: str, media_type: str, request: Request) -> Response:
    return FileResponse(_PAGE / name, media_type=media_type, headers={"Cache-Control": "no-cache"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody reads


async def _bad_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": message_of(error)}, 400)


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
