"""One cluster's Redis: the client, and the Lua scripts. Redis trouble becomes Unreachable here, once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from typing import Any, Self

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from mesh.errors import Unreachable
from mesh.state.keys import Keys

COMMAND_TIMEOUT_S = 5.0
QUIET_MS = 2000  # longest that a stream's reader hears nothing before it asks Redis again


class State:
    """A connection to the cluster's state. Use as an async context manager.

    redis-py's own socket_timeout is off: under Python 3.11 its wait_for swallows cancellations, and it would end
    blocking reads. `answering` bounds commands instead.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self.url = url
        self.keys = Keys(cluster)
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2)
        keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
        self.redis: redis.Redis = redis.from_url(
            url, socket_timeout=None, retry=retry, decode_responses=True, **keepalive
        )
        self._scripts: dict[str, AsyncScript] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as failing:
            failing.push_async_callback(self.close)
            await self._greet()
            failing.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self.redis.aclose()

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await self.redis.ping()
        except (RedisError, TimeoutError) as error:
            raise Unreachable(
                f"Redis at {self.url} does not answer ({error}); start it, or unset WHIMBREL_REDIS_URL for our own",
                reason="STATE_UNREACHABLE",
            ) from error

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Runs scripts/<script>.lua; raises Unreachable when Redis does not answer."""
        if script not in self._scripts:
            source = resources.files("mesh.state").joinpath("scripts", f"{script}.lua").read_text()
            self._scripts[script] = self.redis.register_script(source)
        async with self.answering():
            return await self._scripts[script](keys=list(keys), args=list(args))

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Bounds the commands of the block; raises Unreachable when Redis does not answer."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                yield
        except (RedisError, TimeoutError) as error:
            raise Unreachable(
                f"the cluster's state cannot be reached: {str(error) or 'no answer'}",
                reason="STATE_UNREACHABLE",
                retry_after_s=1.0,
            ) from error


def stream_entries(reply: object) -> list[tuple[str, dict[str, str]]]:
    """The entries of the one stream that xread read; RESP3 answers a map, RESP2 a list of pairs."""
    streams = list(reply.values()) if isinstance(reply, dict) else [pair[1] for pair in reply or []]  # type: ignore[attr-defined]
    if not streams:
        return []
    entries = streams[0]
    return entries[0] if entries and isinstance(entries[0], list) else entries
