"""Being a member: join, renew by heartbeat, publish facts, leave. One task owns the lease."""

import asyncio
from dataclasses import replace
from typing import Self

import structlog
from pydantic import TypeAdapter

from mesh.errors import StaleFence, Unreachable
from mesh.facts import Member
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT

log = structlog.get_logger()
MEMBER: TypeAdapter[Member] = TypeAdapter(Member)
HEARTBEATS_PER_LEASE = 3


class Membership:
    """A member's lease, renewed while the context is open.

    `publish` may be called as often as facts change: the newest wins, and one write is under way at a time.
    A lease that lapsed while Redis was gone is taken again under a new fence; when another process took the
    name, StaleFence ends the context's owner.
    """

    def __init__(self, state: State, member: Member, lease_s: float) -> None:
        self._state, self._lease_s = state, lease_s
        self.member = member
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.superseded: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await self._join()
        self._task = asyncio.create_task(self._keep(), name="lease")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._leave()
        except Unreachable:
            log.warning("left without saying so: the lease will lapse", member=self._name)

    def publish(self, member: Member) -> None:
        """Makes `member` the published facts soon; returns at once."""
        self.member = replace(member, fence=self.member.fence)
        self._dirty.set()

    @property
    def _name(self) -> str:
        return f"{self.member.kind}/{self.member.id}"

    @property
    def _ttl_ms(self) -> int:
        return round(self._lease_s * 1000)

    @property
    def _member_key(self) -> str:
        return self._state.keys.member(self.member.kind, self.member.id)

    def _body(self) -> str:
        return MEMBER.dump_json(self.member).decode()

    async def _join(self) -> None:
        keys = self._state.keys
        fence = await self._state.run(
            "join",
            [keys.leases, keys.fence, self._member_key, keys.events],
            [self._name, self._ttl_ms, self._body(), EVENTS_KEPT],
        )
        self.member = replace(self.member, fence=fence)
        log.info("joined", member=self._name, fence=fence)

    async def _renew(self, body: str) -> None:
        keys = self._state.keys
        held = await self._state.run(
            "renew",
            [keys.leases, self._member_key, keys.events],
            [self._name, self._ttl_ms, self.member.fence, body, EVENTS_KEPT],
        )
        if held == 0:
            log.warning("the lease had lapsed", member=self._name)
            await self._join()
        elif held < 0:
            raise StaleFence(f"another process is now {self._name}; this one stops", reason="SUPERSEDED")

    async def _leave(self) -> None:
        keys = self._state.keys
        await self._state.run(
            "leave",
            [keys.leases, self._member_key, keys.events],
            [self._name, self.member.fence, EVENTS_KEPT],
        )

    async def _keep(self) -> None:
        body = ""
        while True:
            try:
                async with asyncio.timeout(self._lease_s / HEARTBEATS_PER_LEASE):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            if self._dirty.is_set():
                self._dirty.clear()
                body = self._body()
            try:
                await self._renew(body)
                body = ""
            except Unreachable as error:
                log.warning("heartbeat failed", member=self._name, error=error.message)
                await asyncio.sleep(min(1.0, self._lease_s / HEARTBEATS_PER_LEASE))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self.superseded.done():
            self.superseded.set_exception(error)
            self.superseded.exception()  # marks it as seen: an owner that ends first never looks
