"""Guides made ready for the engine: compiled for a checkpoint's own tokenizer, on a thread of their own, and kept."""

import asyncio
import json
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llguidance import LLTokenizer
from transformers import AutoTokenizer

from mesh.clients.store import StoreClient
from mesh.errors import Unsuitable
from mesh.requests import Guide
from services.worker.engine.guide import Grammar
from services.worker.loading.loader import Order

K = TypeVar("K")
V = TypeVar("V")
KEPT_TOKENIZERS, KEPT_GRAMMARS = 16, 256


class Guides:
    """The least recently used tokenizers and grammars are dropped; who asks for the same one together makes it once."""

    def __init__(self, stores: StoreClient, order_of: Callable[[str], Order], scratch_dir: Path) -> None:
        self._stores, self._order_of, self._scratch_dir = stores, order_of, scratch_dir
        self._tokenizers: OrderedDict[str, LLTokenizer] = OrderedDict()
        self._grammars: OrderedDict[tuple[str, Guide], Grammar] = OrderedDict()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by digest

    async def grammar(self, replica: str, guide: Guide) -> Grammar:
        """The guide, for a replica's tokenizer. Raises UnknownReplica, GuideRefused, and what the store raises."""
        order = self._order_of(replica)
        key = (order.digest, guide)
        async with self._turns[order.digest]:
            if key not in self._grammars:
                tokenizer = await self._tokenizer(order.store_address, order.digest)
                self._grammars[key] = await asyncio.to_thread(Grammar, tokenizer, guide)
            return _used(self._grammars, key, KEPT_GRAMMARS)

    async def _tokenizer(self, store_address: str, digest: str) -> LLTokenizer:
        if digest not in self._tokenizers:
            with tempfile.TemporaryDirectory(dir=self._scratch_dir, prefix="whimbrel-guides-") as directory:
                await self._fetch(store_address, digest, Path(directory))
                self._tokenizers[digest] = await asyncio.to_thread(_open, Path(directory))
        return _used(self._tokenizers, digest, KEPT_TOKENIZERS)

    async def _fetch(self, store_address: str, digest: str, directory: Path) -> None:
        """The checkpoint's small files; an adapter's lie over those of its base."""
        stat = await self._stores.stat(store_address, digest)
        if stat.summary.base:
            await self._fetch(store_address, stat.summary.base, directory)
        for file in stat.manifest.files:
            path = directory / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await self._stores.read_file(store_address, digest, file.path))


def _used(kept: OrderedDict[K, V], key: K, most: int) -> V:
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def _open(directory: Path) -> LLTokenizer:
    """On a thread; Unsuitable says why nothing can guide this model. Remote code is never run."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=_ends(directory) or tokenizer.eos_token_id)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        message = f"a guide needs a tokenizer, and this model's cannot be opened: {error}"
        raise Unsuitable(message, reason="NO_TOKENIZER") from error


def _ends(directory: Path) -> list[int]:
    """The tokens that end a sequence, as generation takes them."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        ends = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        if ends is not None:
            return list(ends) if isinstance(ends, list) else [int(ends)]
    return []
