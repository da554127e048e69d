"""Tokenizers by checkpoint: files come from a store once, then stay in memory. Encoding and chat templates."""

import asyncio
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any, Self

import structlog
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mesh.checkpoint.layout import Manifest
from mesh.clients.store import Stat, StoreClient
from mesh.errors import MeshError, Unreachable, Unsuitable
from mesh.facts import NEARNESS, Kind, Tier
from mesh.state.mirror import Mirror
from services.gateway.patience import with_store
from services.gateway.pooling import PoolingFiles, pooling_files
from services.gateway.spelling import Spelling
from services.gateway.templates import Conversation, render

log = structlog.get_logger()
MAX_CONTEXT = "max_context"  # a file of ours beside the checkpoint's, with the manifest's number
TOKENIZERS = ("*token*", "vocab.*", "*.model")  # files, one of which a tokenizer has at least
INLINE_CHARS = 4096  # shorter prompts take less time than a thread takes to start


@dataclass(frozen=True, slots=True)
class Text:
    """What one checkpoint's files say about text. `tokenizer` is None when it has none."""

    tokenizer: Tokenizer | None
    _templating: Any
    generation: dict[str, Any]  # generation_config.json, or empty
    eos_ids: tuple[int, ...]
    vocabulary: int  # ids below this have an embedding; 0: not known
    max_context: int  # tokens of prompt and answer together
    pooling: PoolingFiles = field(default_factory=PoolingFiles)  # for embeddings
    spelling: Spelling | None = field(init=False)  # of the tokenizer

    def __post_init__(self) -> None:
        object.__setattr__(self, "spelling", self.tokenizer and Spelling(self.tokenizer))

    async def encode(self, text: str, *, special: bool = True, most: int | None = None) -> tuple[int, ...]:
        """Token ids; `special` adds what the tokenizer puts around a text, `most` cuts the text so that it fits."""
        encode = partial(_encode, self._needed(), text, special=special, most=most)
        return encode() if len(text) <= INLINE_CHARS else await asyncio.to_thread(encode)

    async def render(self, conversation: Conversation) -> str:
        """The conversation as the model's chat template writes it, ready for the answer."""
        self._needed()
        if sum(len(turn.content) for turn in conversation.turns) <= INLINE_CHARS:
            return render(self._templating, conversation)
        return await asyncio.to_thread(render, self._templating, conversation)

    def _needed(self) -> Tokenizer:
        if self.tokenizer is None:
            has = "no tokenizer" if self._templating is None else f"a {type(self._templating).__name__}, in Python only"
            raise Unsuitable(f"this model has {has}; send token_ids to Generate", reason="NO_TOKENIZER")
        return self.tokenizer


class Texts:
    """One Text a checkpoint, made when first asked for, the least recently used dropped."""

    def __init__(
        self, stores: StoreClient, mirror: Mirror, cache_dir: Path | None, capacity: int, absent_s: float
    ) -> None:
        self._stores, self._mirror, self._capacity, self._absent_s = stores, mirror, capacity, absent_s
        self._temporary = None if cache_dir else tempfile.TemporaryDirectory(prefix="whimbrel-texts-")
        self._dir = cache_dir or Path(self._temporary.name)  # type: ignore[union-attr]
        self._known: OrderedDict[str, Text] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self.on_first: Callable[[], None] = lambda: None  # called once, when the first tokenizer is open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._temporary:
            self._temporary.cleanup()

    async def of(self, digest: str) -> Text:
        """The checkpoint's Text; concurrent callers fetch once."""
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if digest not in self._known:
                directory = await with_store(self._mirror, self._absent_s, partial(self._fetch, digest))
                self._known[digest] = await asyncio.to_thread(_open, directory)
                self._opened(self._known[digest])
        self._locks.pop(digest, None)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return self._known[digest]

    def _opened(self, text: Text) -> None:
        if text.tokenizer:
            first, self.on_first = self.on_first, lambda: None
            first()

    async def keep_warm(self) -> None:
        """Opens the tokenizer of each model that is deployed, before its first request; runs until cancelled."""
        tried: set[str] = set()
        with self._mirror.watching() as changed:
            while True:
                changed.clear()
                digests = {entry.checkpoint.digest for entry in self._mirror.facts.models.values()}
                for digest in sorted(digests - tried)[: self._capacity]:
                    await self._warm(digest)
                tried = digests
                await changed.wait()

    async def _warm(self, digest: str) -> None:
        try:
            await self.of(digest)
        except MeshError as error:
            log.info("tokenizer not opened ahead", checkpoint=digest, error=error.message)

    async def _fetch(self, digest: str) -> Path:
        """The checkpoint's files in a directory named by its digest; a half-fetched one never bears the name."""
        directory = self._dir / digest
        if directory.is_dir():
            return directory
        stat, address = await self._stat(digest)
        with tempfile.TemporaryDirectory(dir=self._dir, prefix=".fetch-") as scratch:
            files = Path(scratch, "files")
            if stat.manifest.base:
                copytree(await self._fetch(stat.manifest.base), files, ignore=_unless_own(stat.manifest))
            _write(files / MAX_CONTEXT, str(stat.manifest.max_context).encode())
            for file in stat.manifest.files:
                _write(files / file.path, await self._stores.read_file(address, digest, file.path))
            _publish(files, directory)
        return directory

    async def _stat(self, digest: str) -> tuple[Stat, str]:
        """The manifest, from the nearest store that answers."""
        stores = [(m, m.store) for m in self._mirror.facts.of_kind(Kind.STORE) if m.store]
        holders = [(m, store.tier_of(digest) or Tier.ORIGIN) for m, store in stores if store.tier_of(digest)]
        holders = holders or [(m, Tier.ORIGIN) for m, store in stores if store.origins]
        holders.sort(key=lambda holder: -NEARNESS[holder[1]])
        failure: MeshError = Unreachable(
            "no store that is alive holds this model's files", reason="CHECKPOINT_UNREACHABLE", retry_after_s=1.0
        )
        for member, _ in holders:
            try:
                return await self._stores.stat(member.address, digest), member.address
            except MeshError as error:
                failure = error
        raise failure


def _encode(tokenizer: Tokenizer, text: str, *, special: bool, most: int | None) -> tuple[int, ...]:
    if most is None:
        return tuple(tokenizer.encode(text, add_special_tokens=special).ids)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    encoding.truncate(max(0, most - tokenizer.num_special_tokens_to_add(False) * special))
    return tuple(tokenizer.post_process(encoding, add_special_tokens=special).ids)


def _unless_own(adapter: Manifest) -> Callable[[str, list[str]], set[str]]:
    """What an adapter does not take over from its base: a tokenizer and templates, if it brings a tokenizer."""
    own = any(fnmatch(file.path, pattern) for file in adapter.files for pattern in TOKENIZERS)
    return ignore_patterns(*TOKENIZERS, "vocab*", "merges*", "*template*") if own else ignore_patterns()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _publish(fetched: Path, directory: Path) -> None:
    if not directory.is_dir():  # another gateway may share the cache
        fetched.rename(directory)


def _open(directory: Path) -> Text:
    generation = _json(directory / "generation_config.json")
    config = _json(directory / "config.json")
    templating = _tokenizer(directory)
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    eos_ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),)
    backend = getattr(templating, "backend_tokenizer", None)
    max_context = int((directory / MAX_CONTEXT).read_text())
    vocabulary = int(config.get("vocab_size", 0))
    return Text(backend, templating, generation, eos_ids, vocabulary, max_context, pooling_files(directory))


def _tokenizer(directory: Path) -> Any:
    """The tokenizer, or None when the checkpoint has none. Remote code is never run."""
    if not any(path for pattern in TOKENIZERS for path in directory.glob(pattern)):
        return None
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise Unsuitable(f"this model's tokenizer cannot be opened: {error}", reason="BAD_TOKENIZER") from error


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
