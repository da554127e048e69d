"""Files behind obstore: in a bucket or container that can be listed, or on a web server, where names must be known."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from mesh.checkpoint import strict_json
from mesh.checkpoint.errors import NotACheckpoint, OriginUnreachable, PathEscapes
from mesh.checkpoint.origins.address import Address
from mesh.checkpoint.origins.blame import GONE, blame, changed, status_of
from mesh.checkpoint.origins.identity import identity_of
from mesh.checkpoint.origins.patience import PIECE_BYTES, waits
from mesh.checkpoint.origins.stores import client_of
from mesh.checkpoint.validate import is_safe_path

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

MOST_NAMES = 10_000  # of a listing, subdirectories included
CHUNK_BYTES = 1 << 20  # copied at once
ASKED_AT_ONCE = 8  # names of a web server
KNOWN = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json", "LICENSE", "LICENSE.txt", "LICENSE.md",
    "adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin",
)  # fmt: skip
"""What a web server is asked for, as it cannot be asked for a list."""
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was at first sight."""

    size: int  # bytes
    tag: str  # entity tag without quotes; "" if the server has none
    weak: bool  # a tag that If-Match does not take
    modified: str

    @property
    def version(self) -> str:
        """What changes with the file."""
        return self.tag or self.modified


class ObjectOrigin:
    """A prefix of a bucket or container. Listing it must be allowed."""

    def __init__(self, address: Address) -> None:
        self.url = str(address)
        self._address = address
        self._store = client_of(address)
        self._lock = threading.Lock()  # held while somebody lists, so that only one does
        self._listed: dict[str, Seen] | None = None
        self._seen: dict[str, Seen] = {}

    @property
    def identity(self) -> str:
        """Of the sizes and entity tags."""
        return identity_of((name, seen.size, seen.version) for name, seen in self._listing().items())

    def names(self) -> tuple[str, ...]:
        """Listed once. Raises NotACheckpoint if there is no such bucket, or too much in it."""
        return tuple(sorted(self._listing()))

    def size(self, name: str) -> int | None:
        """Of a top file as listed; a nested one is asked for."""
        seen = self._found(name)
        return None if seen is None else seen.size

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """In pieces, each of which goes on where a broken answer ended."""
        listed, seen = self._found(name), self._asked(name)
        if listed is None or seen is None:
            raise NotACheckpoint(f"{self._place(name)} is not there")
        if listed.size != seen.size:
            raise changed(self._place(name))
        if offset + len(view) > seen.size:
            raise NotACheckpoint(f"{self._place(name)} ends before byte {offset + len(view)}")
        for start in range(0, len(view), PIECE_BYTES):
            self._fill(name, seen, offset + start, view[start : start + PIECE_BYTES])

    def close(self) -> None:
        """Connections end with the client."""

    def _listing(self) -> dict[str, Seen]:
        with self._lock:
            if self._listed is None:
                self._listed = {name: seen for name, seen in self._list() if "/" not in name}
            return self._listed

    def _list(self) -> Iterator[tuple[str, Seen]]:
        count = 0
        try:
            for batch in obstore.list(self._store, chunk_size=1000):
                count += len(batch)
                if count > MOST_NAMES:
                    raise NotACheckpoint(
                        f"{self.url} holds more than {MOST_NAMES} files; give the directory of one checkpoint"
                    )
                for meta in batch:
                    yield meta["path"], _seen(meta)
        except (BaseError, FileNotFoundError) as error:
            raise blame(error, self.url, self._address.scheme) from error

    def _found(self, name: str) -> Seen | None:
        if not is_safe_path(name):
            raise PathEscapes(f"{self.url} refers to {name!r}; only plain names below it are followed")
        return self._asked(name) if "/" in name else self._listing().get(name)

    def _asked(self, name: str) -> Seen | None:
        """What the server says of one file; asked once, so that it cannot turn into another file later.

        Not taken from a listing, because stores spell the tag differently there.
        """
        if name not in self._seen:
            try:
                found = _seen(obstore.head(self._store, name))
            except FileNotFoundError as error:
                if status_of(error) in GONE:
                    return None
                raise blame(error, self._place(name), self._address.scheme) from error
            except ValueError as error:
                raise PathEscapes(f"{self.url} refers to {name!r}, which is no name there: {error}") from error
            except BaseError as error:
                raise blame(error, self._place(name), self._address.scheme) from error
            self._seen.setdefault(name, found)
        return self._seen[name]

    def _fill(self, name: str, seen: Seen, offset: int, view: memoryview) -> None:
        """One piece. An answer that breaks off is gone on with, up to so many times."""
        done, pauses = 0, waits()
        while done < len(view):
            try:
                for chunk in self._answer(name, seen, offset + done, offset + len(view)):
                    if done + len(chunk) > len(view):
                        raise OriginUnreachable(f"{self._place(name)} came with more bytes than were asked for")
                    view[done : done + len(chunk)] = chunk
                    done += len(chunk)
                error: BaseError | None = None
            except BaseError as broken:
                error = broken
            if done < len(view):
                pause = next(pauses, None)
                if pause is None:
                    raise blame(error or BaseError("the answer is too short"), self._place(name), self._address.scheme)
                time.sleep(pause)

    def _answer(self, name: str, seen: Seen, start: int, end: int) -> Iterator[bytes]:
        """The bytes of one answer; obstore has checked that it is to our range. Raises BaseError if it breaks off."""
        options: GetOptions = {"range": (start, end)}
        if seen.tag and not seen.weak:
            options["if_match"] = f'"{seen.tag}"'
        try:
            result = obstore.get(self._store, name, options=options)
        except (BaseError, FileNotFoundError) as error:
            raise blame(error, self._place(name), self._address.scheme) from error
        now = _seen(result.meta)
        if (now.size, now.version) != (seen.size, seen.version):
            raise changed(self._place(name))
        yield from result.stream(min_chunk_size=CHUNK_BYTES)

    def _place(self, name: str) -> str:
        return f"{self.url}/{name}"


class WebOrigin(ObjectOrigin):
    """A directory of a web server: files are found by name, those of the index among them."""

    def _list(self) -> Iterator[tuple[str, Seen]]:
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            for names in (KNOWN, self._shards()):
                for name, found in zip(names, pool.map(self._asked, names), strict=True):
                    if found is not None:
                        yield name, found

    def _found(self, name: str) -> Seen | None:
        if not is_safe_path(name):
            raise PathEscapes(f"{self.url} refers to {name!r}; only plain names below it are followed")
        return self._asked(name)

    def _shards(self) -> Sequence[str]:
        """The names in the index, as far as it can be understood: what is wrong with it, its reader says."""
        found = self._asked(INDEX)
        if found is None or found.size > MAX_INDEX_BYTES:
            return []
        data = bytearray(found.size)
        self.read_into(INDEX, 0, memoryview(data))
        try:
            index = strict_json.loads(bytes(data))
        except ValueError:
            return []
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        values = weight_map.values() if isinstance(weight_map, dict) else ()
        names = {name for name in values if isinstance(name, str) and is_safe_path(name) and "/" not in name}
        return sorted(names)[:MOST_NAMES]


def _seen(meta: "ObjectMeta") -> Seen:
    tag = meta["e_tag"] or ""
    return Seen(
        meta["size"], tag.removeprefix("W/").strip('"'), tag.startswith("W/"), meta["last_modified"].isoformat()
    )
