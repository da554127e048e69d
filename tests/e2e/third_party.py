"""Clients that know nothing of us but an address: buf curl, and grpc_requests with an empty descriptor pool."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.symbol_database import SymbolDatabase
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_requests.aio import AsyncClient

BUF = Path(sys.executable).parent / "buf"
FLAGS = ("--protocol", "grpc", "--http2-prior-knowledge")


@dataclass(frozen=True, slots=True)
class Curled:
    """What buf curl printed: the messages, or the error; `code` is the gRPC status."""

    messages: tuple[dict[str, Any], ...]
    code: int
    error: str

    @property
    def reason(self) -> str:
        """Of the error's ErrorInfo, which buf shows as base64: it asks reflection for messages, not for details."""
        details = {detail["type"]: detail["value"] for detail in json.loads(self.error)["details"]}
        value = details["google.rpc.ErrorInfo"]
        info = ErrorInfo.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
        return str(info.reason)


class BufCurl:
    """Calls one process, whose services it learns by reflection under either of its names."""

    def __init__(self, address: str, reflection: str) -> None:
        self._url = f"http://{address}"
        self._flags = (*FLAGS, "--reflect-protocol", reflection)

    async def __call__(self, method: str, request: dict[str, Any] | None = None) -> Curled:
        """One call, to its end."""
        process = await self._start(f"{self._url}/{method}", "--data", json.dumps(request or {}))
        out, error = await process.communicate()
        return Curled(tuple(documents(out.decode())), (process.returncode or 0) >> 3, error.decode())

    async def services(self) -> set[str]:
        """Their full names."""
        process = await self._start(self._url, "--list-services")
        out, _ = await process.communicate()
        return set(out.decode().split())

    @asynccontextmanager
    async def reading(self, method: str, request: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A stream's messages as they come; the call ends with the context."""
        process = await self._start(f"{self._url}/{method}", "--data", json.dumps(request))
        assert process.stdout
        try:
            yield _read(process.stdout)
        finally:
            process.terminate()
            await process.communicate()

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(BUF, "curl", *self._flags, *arguments, stdout=pipe, stderr=pipe)


def documents(text: str) -> list[dict[str, Any]]:
    """JSON objects, one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


async def _read(stdout: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    text = ""
    async for line in stdout:
        text += line.decode()
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue
        text = ""


@asynccontextmanager
async def by_reflection(address: str) -> AsyncIterator[Any]:
    """A grpc_requests client that has never seen our descriptors."""
    pool = DescriptorPool()
    client: Any = AsyncClient(address, descriptor_pool=pool, symbol_db=SymbolDatabase(pool))
    try:
        yield client
    finally:
        await client.channel.close()
