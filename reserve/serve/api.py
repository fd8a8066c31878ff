"""What the page asks the server: videos, uploads, questions and searches, as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from reserve.data.video import open_video
from reserve.errors import BadInput
from reserve.serve.answering import Answering, Progress
from reserve.serve.job_response import JobResponse
from reserve.serve.playback import MEDIA_TYPES, why_not_played
from reserve.serve.questions import Question, Search, Sound
from reserve.serve.uploads import Storage, UploadRefused
from reserve.serve.video_files import FolderVideos, VideoFile
from reserve.serve.worker import Busy, Worker


class Api:
    """The handlers of requests. `folder` has videos of the machine beside those that visitors upload."""

    def __init__(self, answering: Answering, worker: Worker, storage: Storage, folder: FolderVideos | None) -> None:
        self.answering, self.worker, self.storage, self.folder = answering, worker, storage, folder
        self.limits = storage.limits
        self._details: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/api/videos", self.list_videos, methods=["GET"]),
            Route("/api/videos", self.upload, methods=["POST"]),
            Route("/api/videos/{video_id}", self.describe, methods=["GET"]),
            Route("/api/videos/{video_id}", self.delete, methods=["DELETE"]),
            Route("/api/videos/{video_id}/ask", self.ask, methods=["POST"]),
            Route("/api/videos/{video_id}/index", self.index, methods=["POST"]),
            Route("/api/search", self.search, methods=["POST"]),
            Route("/media/{video_id}", self.play, methods=["GET"]),
        ]

    async def list_videos(self, request: Request) -> Response:
        return JSONResponse(
            {
                "videos": await to_thread.run_sync(lambda: [self._entry(video) for video in self._all()]),
                "upload_bytes": self.limits.upload_bytes,
                "endings": sorted(MEDIA_TYPES),
            }
        )

    async def describe(self, request: Request) -> Response:
        """What the header of the file says, and whether browsers play it."""
        video = await self._video(request.path_params["video_id"])
        if video.id not in self._details:
            try:
                self._details[video.id] = await to_thread.run_sync(_details, video.path)
            except BadInput as error:
                raise HTTPException(422, _without_path(str(error), video)) from error
        return JSONResponse(self._entry(video) | self._details[video.id])

    async def play(self, request: Request) -> Response:
        """The file, whole or the ranges of bytes that are asked for."""
        video = await self._video(request.path_params["video_id"])
        media_type = MEDIA_TYPES[video.path.suffix.lower()]
        return FileResponse(video.path, media_type=media_type, headers={"Cache-Control": "private, no-cache"})

    async def upload(self, request: Request) -> Response:
        """The body is the file, and the parameter `name` what the visitor calls it."""
        if request.headers.get("content-type") != "application/octet-stream":
            raise HTTPException(415, "send one file as the body, with Content-Type: application/octet-stream")
        length = request.headers.get("content-length")
        try:
            video = await self.storage.add(
                request.query_params.get("name", ""),
                None if length is None else int(length),
                request.stream(),
                open_video,
            )
        except UploadRefused as refused:
            raise HTTPException(refused.status, str(refused), {"Connection": "close"}) from refused
        return JSONResponse(self._entry(video), 201)

    async def delete(self, request: Request) -> Response:
        video = await self._video(request.path_params["video_id"])
        if not video.uploaded:
            raise HTTPException(403, f"{video.name} was not uploaded; only uploaded videos can be deleted here")
        await to_thread.run_sync(self.storage.delete, video)
        self._details.pop(video.id, None)
        return Response(status_code=204)

    async def ask(self, request: Request) -> Response:
        video = await self._video(request.path_params["video_id"])
        asked = Question.from_json(await self._json(request), self.limits)

        def work(progress: Progress) -> Any:
            return self.answering.ask(video.path, asked.text, asked.answers, start=asked.start, stop=asked.stop)

        return self._job(work, [video])

    async def index(self, request: Request) -> Response:
        video = await self._video(request.path_params["video_id"])
        folder = self._index_folder(video)

        def work(progress: Progress) -> None:
            self.answering.index(video.path, folder, progress)

        return self._job(work, [video])

    async def search(self, request: Request) -> Response:
        asked = Search.from_json(await self._json(request), self.limits)
        if asked.videos is None:
            videos = await to_thread.run_sync(lambda: [video for video in self._all() if self._is_indexed(video)])
            if not videos:
                raise HTTPException(409, "no video has an index yet")
        else:
            videos = [await self._video(video_id) for video_id in asked.videos]
            for video in videos:
                if not self._is_indexed(video):
                    raise HTTPException(409, f"{video.name} has no index yet")
        indexes = {video.id: self._index_folder(video) for video in videos}
        source = await self._video(asked.wanted.video) if isinstance(asked.wanted, Sound) else None

        def work(progress: Progress) -> Any:
            if isinstance(asked.wanted, str):
                return self.answering.search_text(indexes, asked.wanted, asked.most)
            assert source is not None
            start, stop = asked.wanted.start, asked.wanted.stop
            return self.answering.search_sound(indexes, source.path, start, stop, asked.most)

        return self._job(work, videos if source is None else [*videos, source])

    def _job(self, work: Any, videos: list[VideoFile]) -> JobResponse:
        try:
            job = self.worker.submit(work)
        except Busy as busy:
            raise HTTPException(503, str(busy), {"Retry-After": "5"}) from busy

        def shown(message: str) -> str:
            for video in videos:
                message = _without_path(message, video)
            return message.replace(f"{self.storage.folder}{os.sep}", "")

        return JobResponse(job, self.worker, _to_json, shown)

    async def _video(self, video_id: str) -> VideoFile:
        found = self.storage.find(video_id)
        if found is None and self.folder is not None:
            found = await to_thread.run_sync(self.folder.find, video_id)
        if found is None:
            raise HTTPException(404, "there is no such video; it may have been deleted or changed")
        return found

    def _entry(self, video: VideoFile) -> dict[str, Any]:
        return {
            "id": video.id,
            "name": video.name,
            "size": video.size,
            "uploaded": video.uploaded,
            "indexed": self._is_indexed(video),
        }

    def _all(self) -> list[VideoFile]:
        return self.storage.list() + ([] if self.folder is None else self.folder.list())

    def _is_indexed(self, video: VideoFile) -> bool:
        return self.answering.is_indexed(self._index_folder(video))

    def _index_folder(self, video: VideoFile) -> Path:
        return self.storage.index_folder(self.answering.identity, video.id)

    async def _json(self, request: Request) -> Any:
        """The body, which is small and JSON, or an error."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "send JSON, with Content-Type: application/json")
        body = b""
        async for chunk in _at_most(request.stream(), self.limits.body_bytes):
            body += chunk
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the body is not JSON") from error


async def _at_most(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise HTTPException(413, f"the request has more than {most} bytes", {"Connection": "close"})
        yield chunk


def _details(path: Path) -> dict[str, Any]:
    video = open_video(path)
    return {
        "seconds": video.duration,
        "is_cut": video.is_cut,
        "has_sound": video.has_sound,
        "unplayable": why_not_played(path, video.info),
    }


def _without_path(message: str, video: VideoFile) -> str:
    """The message with the video's name for its place on the machine."""
    return message.replace(str(video.path), video.name)


def _to_json(result: Any) -> Any:
    if result is None:
        return None
    return [asdict(part) for part in result] if isinstance(result, list | tuple) else asdict(result)
