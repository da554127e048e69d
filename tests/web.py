"""A web server for tests: real files by ranges and entity tags, as honest as a test wants it to be."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str  # decoded, with a slash in front
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass(slots=True)
class Answer:
    """What goes back. `cut` bytes of the body are sent before the connection breaks off."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    length: int | None = None  # said instead of the body's
    endless: bool = False  # the body again and again, in chunks


Twist = Callable[[Asked, Answer], Answer]


class Web:
    """Serves `files`, by path. `twist` may turn any answer into another."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.twist: Twist = lambda _, answer: answer
        self.sent_bytes = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, directory: Path, prefix: str) -> str:
        """Serves the files of a directory below a prefix; returns their address."""
        for path in directory.rglob("*"):
            if path.is_file():
                self.files[f"/{prefix}/{path.relative_to(directory).as_posix()}"] = path.read_bytes()
        return f"{self.url}/{prefix}"

    def answer(self, asked: Asked) -> Answer:
        """The honest one."""
        if asked.method not in {"GET", "HEAD"}:
            return Answer(405)
        data = self.files.get(asked.path)
        return Answer(404, body=b"no such file") if data is None else ranged(asked, data)

    @contextmanager
    def running(self) -> Iterator["Web"]:
        """Answers until the context is closed."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def ranged(asked: Asked, data: bytes) -> Answer:
    """A file, or the range of it that was asked for, if it is still what the client thinks."""
    tag = f'"{hashlib.md5(data).hexdigest()}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes"}
    if asked.headers.get("if-match", tag) != tag:
        return Answer(412, headers)
    wanted = asked.headers.get("range")
    if wanted is None:
        return Answer(200, headers, data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
    if start >= len(data):
        return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end])


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client had enough
                self.close_connection = True

        def reply(self) -> None:
            split = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(self.command, unquote(split.path), parse_qs(split.query), headers, body)
            web.asked.append(asked)
            self.send(web.twist(asked, web.answer(asked)))

        def send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.endless:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            if self.command == "HEAD":
                return
            while answer.endless:
                self.push(b"%x\r\n%s\r\n" % (len(answer.body), answer.body))
            self.push(answer.body[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

        def push(self, data: bytes) -> None:
            self.wfile.write(data)
            web.sent_bytes += len(data)

        do_GET = do_HEAD = do_POST = reply  # noqa: N815 - the names that http.server looks for

    return Handler
