"""A model repository of a Hugging Face hub, at one commit: huggingface_hub says what is in it, ranges come by HTTP.

Large files are served by redirects to wherever the hub keeps them; files stored by Xet too, and ranges of them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from mesh.checkpoint.errors import (
    BadAddress,
    CheckpointError,
    NotACheckpoint,
    OriginRefused,
    OriginUnreachable,
    PathEscapes,
)
from mesh.checkpoint.origins.address import Address
from mesh.checkpoint.origins.blame import changed
from mesh.checkpoint.origins.patience import ANSWER_S, CONNECT_S, PIECE_BYTES, SILENCE_S, waits
from mesh.checkpoint.validate import is_safe_path

T = TypeVar("T")
MOST_NAMES = 10_000
CHUNK_BYTES = 1 << 20
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
LOGIN = "set HF_TOKEN in the store's environment to a token that may read it, and accept the model's terms on the hub"
ODD = (ValueError, TypeError, KeyError, AttributeError, LookupError)  # from reading an answer that is none of a hub's


class Broken(Exception):
    """An answer that failed in a way that may pass."""


class HubOrigin:
    """The files of one commit. Asks the hub for it at once, so making one may raise what reading may.

    Without an endpoint it is the library's: HF_ENDPOINT, or huggingface.co.
    """

    def __init__(self, address: Address, endpoint: str | None = None) -> None:
        self._repository, self._api, self._lock = address.host, HfApi(endpoint), threading.Lock()
        self.url = str(address)
        info = self._ask(lambda: self._api.model_info(address.host, revision=address.revision or None, expand=["sha"]))
        if not isinstance(info.sha, str) or len(info.sha) != 40:
            raise OriginUnreachable(f"{self.url}: the hub names no commit for it; is HF_ENDPOINT a hub?")
        self._commit = info.sha
        self.url = str(Address(address.scheme, address.host, "", info.sha))
        self._listed: dict[str, int] | None = None
        self._nested: dict[str, int] = {}

    @property
    def identity(self) -> str:
        """The commit."""
        return self._commit

    def names(self) -> tuple[str, ...]:
        """Listed once."""
        return tuple(sorted(self._listing()))

    def size(self, name: str) -> int | None:
        """As the hub's listing has it."""
        if not is_safe_path(name):
            raise PathEscapes(f"{self.url} refers to {name!r}; only plain names inside it are followed")
        return self._nested_size(name) if "/" in name else self._listing().get(name)

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """In pieces, each of which goes on where a broken answer ended."""
        size = self.size(name)
        if size is None:
            raise NotACheckpoint(f"{self._place(name)} is not there")
        if offset + len(view) > size:
            raise NotACheckpoint(f"{self._place(name)} ends before byte {offset + len(view)}")
        for start in range(0, len(view), PIECE_BYTES):
            self._fill(name, size, offset + start, view[start : start + PIECE_BYTES])

    def close(self) -> None:
        """The connections are shared by all users of huggingface_hub in this process."""

    def _listing(self) -> dict[str, int]:
        with self._lock:
            if self._listed is None:
                self._listed = self._ask(self._list)
            return self._listed

    def _list(self) -> dict[str, int]:
        tree = self._api.list_repo_tree(self._repository, revision=self._commit)
        entries = list(islice(tree, MOST_NAMES + 1))
        if len(entries) > MOST_NAMES:
            raise NotACheckpoint(f"{self.url} has more than {MOST_NAMES} files at its top; it is no checkpoint")
        return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}

    def _nested_size(self, name: str) -> int | None:
        if name not in self._nested:
            found = self._ask(lambda: self._api.get_paths_info(self._repository, [name], revision=self._commit))
            files = [entry.size for entry in found if isinstance(entry, RepoFile) and entry.path == name]
            if not files:
                return None
            self._nested.setdefault(name, files[0])
        return self._nested[name]

    def _ask(self, question: Callable[[], T]) -> T:
        """An answer of the hub's interface. What may pass is tried again."""
        pauses = waits()
        while True:
            try:
                return question()
            except (HfHubHTTPError, httpx2.TransportError) as error:
                pause = next(pauses, None) if _is_transient(error) else None
                if pause is None:
                    raise self._blame(error) from error
                time.sleep(pause)
            except (OfflineModeIsEnabled, HFValidationError, httpx2.HTTPError, *ODD) as error:
                raise self._blame(error) from error

    def _fill(self, name: str, size: int, offset: int, view: memoryview) -> None:
        """One piece. An answer that breaks off is gone on with, up to so many times."""
        done, pauses, cause = 0, waits(), "the answer is too short"
        while done < len(view):
            try:
                for chunk in self._answer(name, size, offset + done, offset + len(view)):
                    if done + len(chunk) > len(view):
                        raise OriginUnreachable(f"{self._place(name)} came with more bytes than were asked for")
                    view[done : done + len(chunk)] = chunk
                    done += len(chunk)
            except httpx2.TransportError as error:
                cause = f"{type(error).__name__} {error}"
            except Broken as error:
                cause = str(error)
            except (OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise self._blame(error) from error
            if done < len(view):
                pause = next(pauses, None)
                if pause is None:
                    raise OriginUnreachable(f"{self._place(name)} could not be read: {cause}; try again")
                time.sleep(pause)

    def _answer(self, name: str, size: int, start: int, end: int) -> Iterator[bytes]:
        """The bytes of one answer to our range, checked to be that. The token goes to the hub alone, not along."""
        url = hf_hub_url(self._repository, name, revision=self._commit, endpoint=self._api.endpoint)
        headers = build_hf_headers(library_name="whimbrel")
        headers |= {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        begun = time.monotonic()
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            self._check(response, name, f"bytes {start}-{end - 1}/{size}")
            for chunk in response.iter_raw(CHUNK_BYTES):
                yield chunk
                if time.monotonic() - begun > ANSWER_S:
                    raise Broken("the answer is too slow")

    def _check(self, response: httpx2.Response, name: str, wanted: str) -> None:
        """Looks at status and headers only: the body of an error may be of any size."""
        place, status = self._place(name), response.status_code
        for answer in (*response.history, response):
            if answer.headers.get("X-Repo-Commit", self._commit) != self._commit:
                raise changed(place)
        if status in TRANSIENT:
            raise Broken(f"status {status}")
        if status in {401, 403}:
            raise OriginRefused(f"{place} may not be read (status {status}); {LOGIN}")
        if status == 404:
            raise NotACheckpoint(f"{place} is not there (status 404)")
        if status == 200:
            raise OriginRefused(
                f"{place} cannot be read in pieces: the hub's server ignores Range; is HF_ENDPOINT a hub?"
            )
        if status == 416:
            raise changed(place)
        if status != 206:
            raise OriginUnreachable(f"{place} could not be read: status {status}; try again")
        given = response.headers.get("Content-Range", "")
        if given.rpartition("/")[2] != wanted.rpartition("/")[2] and given.startswith("bytes "):
            raise changed(place)
        if given != wanted or response.headers.get("Content-Encoding", "identity") != "identity":
            raise OriginUnreachable(f"{place} came as {given[:100] or 'no range'}, not as {wanted}")

    def _blame(self, error: Exception) -> CheckpointError:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if isinstance(error, RevisionNotFoundError):
            return NotACheckpoint(f"{self.url} is not there: its repository has no such revision")
        if isinstance(error, GatedRepoError) or (
            status in {401, 403} and not isinstance(error, RepositoryNotFoundError)
        ):
            return OriginRefused(f"{self.url} may not be read (status {status}); {LOGIN}")
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            return NotACheckpoint(f"{self.url} is not there, or only for who may see it; if it is private, {LOGIN}")
        if isinstance(error, HFValidationError):
            return BadAddress(f"is no hub's repository: {error}")
        if isinstance(error, OfflineModeIsEnabled):
            return OriginRefused(
                f"{self.url} was not asked: HF_HUB_OFFLINE is set; unset it in the store's environment"
            )
        cause = f"status {status}" if status else f"{type(error).__name__}: {str(error)[:200]}"
        return OriginUnreachable(
            f"{self.url} could not be read: {cause}; see that {self._api.endpoint} is a hub that runs, and try again"
        )

    def _place(self, name: str) -> str:
        return f"{self.url}/{name}"


def _is_transient(error: Exception) -> bool:
    return error.response.status_code in TRANSIENT if isinstance(error, HfHubHTTPError) else True
