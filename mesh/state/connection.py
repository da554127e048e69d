"""One cluster's Redis: the two clients, and the Lua scripts. Redis trouble becomes Unreachable here, once."""

from collections.abc import Sequence
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


class State:
    """A connection to the cluster's state. Use as an async context manager.

    Two clients, because redis-py gives every socket a timeout: `commands` has one, `blocking` (XREAD BLOCK) has none.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self.url = url
        self.keys = Keys(cluster)
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2)
        self.commands: redis.Redis = redis.from_url(
            url, socket_timeout=COMMAND_TIMEOUT_S, retry=retry, decode_responses=True
        )
        self.blocking: redis.Redis = redis.from_url(
            url, socket_timeout=None, retry=Retry(ExponentialBackoff(), retries=0), decode_responses=True
        )
        self._scripts: dict[str, AsyncScript] = {}

    async def __aenter__(self) -> Self:
        try:
            await self.commands.ping()
        except RedisError as error:
            await self.close()
            raise Unreachable(
                f"Redis at {self.url} does not answer ({error}); start it, or unset WHIMBREL_REDIS_URL for our own",
                reason="STATE_UNREACHABLE",
            ) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes both clients."""
        await self.commands.aclose()
        await self.blocking.aclose()

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Runs scripts/<script>.lua; raises Unreachable when Redis does not answer."""
        if script not in self._scripts:
            source = resources.files("mesh.state").joinpath("scripts", f"{script}.lua").read_text()
            self._scripts[script] = self.commands.register_script(source)
        try:
            return await self._scripts[script](keys=list(keys), args=list(args))
        except RedisError as error:
            raise Unreachable(
                f"the cluster's state cannot be reached: {error}",
                reason="STATE_UNREACHABLE",
                retry_after_s=1.0,
            ) from error
