"""A hub for tests: what huggingface_hub calls of one, over HTTP, with large files on a server of another address."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

from tests.web import Answer, Asked, Web, ranged

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"
PAGE = 5  # files a page of a listing


class Hub(Web):
    """One repository at one commit. `private` asks for the token, `gated` turns it away all the same."""

    def __init__(self, repository: str, storage: Web) -> None:
        super().__init__()
        self.repository, self.storage = repository, storage
        self.branches = {"main": COMMIT, COMMIT: COMMIT}
        self.content: dict[str, bytes] = {}
        self.private = self.gated = False

    def hold(self, directory: Path) -> None:
        """Makes the files of a directory the repository's content; safetensors go to the storage."""
        for path in directory.rglob("*"):
            if path.is_file():
                name, data = path.relative_to(directory).as_posix(), path.read_bytes()
                self.content[name] = data
                if name.endswith(".safetensors"):
                    self.storage.files[f"/blobs/{_sha(data)}"] = data

    def answer(self, asked: Asked) -> Answer:
        """As huggingface.co answers, for what an import calls."""
        if self.private and asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return _refused(401, "RepoNotFound")
        if self.gated:
            return _refused(403, "GatedRepo")
        api, plain = f"/api/models/{self.repository}", f"/{self.repository}/resolve/"
        if asked.path.startswith(plain):
            revision, _, name = asked.path.removeprefix(plain).partition("/")
            return self._file(asked, revision, name)
        return (
            self._told(asked, asked.path.removeprefix(api))
            if asked.path.startswith(api)
            else _refused(404, "RepoNotFound")
        )

    def _told(self, asked: Asked, question: str) -> Answer:
        """What the interface says of the repository."""
        if question.startswith("/tree/"):
            return self._tree(asked)
        if question.startswith("/paths-info/"):
            names = parse_qs(asked.body.decode())["paths"]
            return _json([self._entry(name) for name in names if name in self.content])
        return self._info(question.removeprefix("/revision/") or "main")

    def _info(self, revision: str) -> Answer:
        if revision not in self.branches:
            return _refused(404, "RevisionNotFound")
        return _json({"_id": "1", "id": self.repository, "sha": self.branches[revision]})

    def _tree(self, asked: Asked) -> Answer:
        """A page of the top directory, and a link to the next one."""
        entries = [self._entry(name) for name in sorted(self.content) if "/" not in name]
        entries += [{"type": "directory", "path": name.partition("/")[0], "oid": "0" * 40, "size": 0}
                    for name in self.content if "/" in name]  # fmt: skip
        start = int(asked.query.get("cursor", ["0"])[0])
        answer = _json(entries[start : start + PAGE])
        if start + PAGE < len(entries):
            answer.headers["Link"] = f'<{self.url}{asked.path}?cursor={start + PAGE}>; rel="next"'
        return answer

    def _entry(self, name: str) -> dict[str, object]:
        data = self.content[name]
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": "f" * 40}
        if name.endswith(".safetensors"):
            entry |= {"lfs": {"oid": _sha(data), "size": len(data), "pointerSize": 134}, "xetHash": "a" * 64}
        return entry

    def _file(self, asked: Asked, revision: str, name: str) -> Answer:
        if revision not in self.branches or name not in self.content:
            return _refused(404, "EntryNotFound")
        data = self.content[name]
        if not name.endswith(".safetensors"):
            answer = ranged(asked, data)
            answer.headers["X-Repo-Commit"] = self.branches[revision]
            return answer
        return Answer(
            302,
            {
                "Location": f"{self.storage.url}/blobs/{_sha(data)}?signature=secret",
                "X-Repo-Commit": self.branches[revision],
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{_sha(data)}"',
            },
        )


@contextmanager
def hub(repository: str = "whimbrel/tiny") -> Iterator[Hub]:
    """A hub and its storage."""
    with Web().running() as storage:
        made = Hub(repository, storage)
        with made.running():
            yield made


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refused(status: int, code: str) -> Answer:
    return Answer(status, {"X-Error-Code": code, "X-Error-Message": f"{code} it is"})


def _json(value: object) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())
