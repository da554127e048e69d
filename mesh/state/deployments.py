"""What is deployed, for those who want to be ready for it: hints, of which some may be missed or come twice."""

import asyncio
from collections.abc import AsyncGenerator

import structlog
from redis.exceptions import RedisError

from mesh.errors import Unreachable
from mesh.facts import Kind, Member, ModelEntry, Tier
from mesh.state.catalogue import ENTRY
from mesh.state.connection import QUIET_MS, State, stream_entries
from mesh.state.leases import MEMBER

log = structlog.get_logger()
BATCH = 100
RETRY_S = 5.0
ON_NODE = (Tier.DISK, Tier.DRAM)


async def deployments(state: State) -> AsyncGenerator[ModelEntry, None]:
    """Every model of the catalogue, the one that was deployed last first; then each as it is deployed or changed.

    Never ends. While Redis is gone nothing comes; once it is back, everything comes again.
    """
    last = ""
    while True:
        try:
            if last:
                last, entries = await _next(state, last)
            else:
                last, entries = await _all(state)
        except (RedisError, Unreachable) as error:
            log.info("hears nothing of deployments for now", error=str(error))
            last, entries = "", []
            await asyncio.sleep(RETRY_S)
        for entry in entries:
            yield entry


async def holders(state: State, digest: str) -> list[Member]:
    """The stores that have all of a checkpoint's bytes on their node now. Raises Unreachable."""
    async with state.answering():
        names = await state.redis.zrange(state.keys.leases, 0, -1)
        stores = [str(name) for name in names if str(name).startswith(f"{Kind.STORE}/")]
        bodies = [await state.redis.hget(state.keys.member_prefix + name, "body") for name in stores]
    members = [MEMBER.validate_json(body) for body in bodies if body]
    return [member for member in members if member.store and member.store.tier_of(digest) in ON_NODE]


async def _all(state: State) -> tuple[str, list[ModelEntry]]:
    async with state.answering():
        newest = await state.redis.xrevrange(state.keys.deployments, count=1)
        bodies = await state.redis.hgetall(state.keys.models)
    entries = [ENTRY.validate_json(body) for body in bodies.values()]
    return str(newest[0][0]) if newest else "0-0", sorted(entries, key=lambda entry: -entry.updated_s)


async def _next(state: State, last: str) -> tuple[str, list[ModelEntry]]:
    async with state.answering():
        reply = await state.redis.xread({state.keys.deployments: last}, count=BATCH, block=QUIET_MS)
    entries = stream_entries(reply)
    return entries[-1][0] if entries else last, [ENTRY.validate_json(fields["body"]) for _, fields in entries]
