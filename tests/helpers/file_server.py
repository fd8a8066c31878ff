"""A local HTTP server of a folder that serves byte ranges, counts requests and fails where it is told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """`requests` are (method, file name, range or None). `failures` are statuses that the next requests are answered
    with. Without `ranges` whole files are sent, as Python's own server does."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.folder, self.ranges = folder, ranges
        self.requests: list[tuple[str, str, str | None]] = []
        self.failures: list[int] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yields the URL of the folder."""
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments, **settings) -> None:
                super().__init__(*arguments, directory=str(owner.folder), **settings)

            def do_GET(self) -> None:
                owner.answer(self, super().do_GET)

            def do_HEAD(self) -> None:
                owner.answer(self, super().do_HEAD)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, handler: SimpleHTTPRequestHandler, whole) -> None:
        wanted = handler.headers.get("Range")
        name = handler.path.lstrip("/")
        self.requests.append((handler.command, name, wanted))
        if self.failures:
            handler.send_error(self.failures.pop(0))
            return
        path = self.folder / name
        if not (self.ranges and wanted and handler.command == "GET" and path.is_file()):
            whole()
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
        data = path.read_bytes()
        if first >= len(data):
            handler.send_error(416)
            return
        part = data[first : last + 1]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        handler.wfile.write(part)
