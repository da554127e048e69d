"""A scheduler and workers at the edge of the process: real sockets, and a test that says what they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from grpc import aio
from whimbrel.scheduler.v1 import scheduler_pb2
from whimbrel.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from whimbrel.worker.v1 import worker_pb2
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

from mesh.clients.holding import Holding, holding_from
from mesh.clients.move_wire import moved_from
from mesh.clients.place_wire import placement_to, relocation_to
from mesh.clients.relay import Command, News, command_from, response_to
from mesh.clients.wire import progress_to
from mesh.errors import MeshError, Unreachable
from mesh.interceptor import Surround
from mesh.moves import Abandon, Expect, Moved, Relocation, Send
from mesh.requests import Cancel, Farewell, Grant, Phase, Placement, Progress, StartKind, StartTimes

Context = aio.ServicerContext[Any, Any]
WAIT_S = 60.0


def placement(worker_id: str, address: str, fence: int = 1, digest: str = "d1") -> Placement:
    """A warm place."""
    return Placement(worker_id, address, fence, digest, StartKind.WARM, StartTimes(0.25, 0.0))


class Edge:
    """A server that may crash and come back elsewhere."""

    def __init__(self) -> None:
        self.address = ""
        self._server: aio.Server | None = None

    def mount(self, server: aio.Server) -> None:
        """Adds its service."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = aio.server(interceptors=[Surround()])
        self.mount(self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def crash(self) -> None:
        """Drops every call at once, and answers none."""
        if self._server:
            await self._server.stop(None)
            self._server = None


class FakeScheduler(SchedulerServiceServicer, Edge):
    """Gives each Assign the next of `answers`: an error, or a placement after a word of progress."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[Placement | MeshError] = asyncio.Queue()
        self.asked: list[scheduler_pb2.AssignRequest] = []
        self.came, self.released = asyncio.Event(), asyncio.Event()
        self.told: asyncio.Queue[Holding] = asyncio.Queue()
        self.relocations: asyncio.Queue[Relocation] = asyncio.Queue()  # on the next Assign stream that has a place
        self.relocating: asyncio.Queue[tuple[int, Relocation]] = asyncio.Queue()  # on the Hold line
        self.outcomes: asyncio.Queue[Moved] = asyncio.Queue()
        self.deaf = 0  # to so many outcomes

    def mount(self, server: aio.Server) -> None:
        """Adds its service."""
        add_SchedulerServiceServicer_to_server(self, server)

    async def Assign(  # noqa: N802
        self, request: scheduler_pb2.AssignRequest, context: Context
    ) -> AsyncIterator[scheduler_pb2.AssignResponse]:
        """Holds the place until the stream is closed."""
        self.asked.append(request)
        self.came.set()
        yield scheduler_pb2.AssignResponse(progress=progress_to(Progress(Phase.QUEUED, position=1)))
        answer = await self.answers.get()
        if isinstance(answer, MeshError):
            raise answer
        try:
            yield scheduler_pb2.AssignResponse(placement=placement_to(answer))
            while True:
                yield scheduler_pb2.AssignResponse(relocation=relocation_to(await self.relocations.get()))
        finally:
            self.released.set()

    async def Hold(  # noqa: N802
        self, request_iterator: AsyncIterator[scheduler_pb2.HoldRequest], context: Context
    ) -> AsyncIterator[scheduler_pb2.HoldResponse]:
        """Keeps what it is told."""
        reader = asyncio.create_task(self._hear(request_iterator))
        try:
            yield scheduler_pb2.HoldResponse()
            while True:
                number, relocation = await self.relocating.get()
                yield scheduler_pb2.HoldResponse(number=number, relocation=relocation_to(relocation))
        finally:
            reader.cancel()

    async def _hear(self, requests: AsyncIterator[scheduler_pb2.HoldRequest]) -> None:
        async for request in requests:
            self.told.put_nowait(holding_from(request))

    async def Moved(  # noqa: N802
        self, request: scheduler_pb2.MovedRequest, context: Context
    ) -> scheduler_pb2.MovedResponse:
        """Keeps it, unless it is deaf still."""
        if self.deaf:
            self.deaf -= 1
            raise Unreachable("busy")
        self.outcomes.put_nowait(moved_from(request))
        return scheduler_pb2.MovedResponse()

    async def outcome(self) -> Moved:
        """The next relocation's end that a gateway tells of."""
        async with asyncio.timeout(WAIT_S):
            return await self.outcomes.get()

    async def hears(self) -> Holding:
        """The next that a gateway tells of its places."""
        async with asyncio.timeout(WAIT_S):
            return await self.told.get()


class FakeWorker(WorkerServiceServicer, Edge):
    """Keeps what a gateway commands, and says what the test sends."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.gateways: list[str] = []
        self.closed = asyncio.Event()  # by a gateway, which commands nothing more on its line
        self.embedded: list[worker_pb2.EmbedRequest] = []
        self.embeds_at_most = 1 << 30  # calls; what comes after them is dropped with the process
        self.frozen = False  # it answers no call
        self.looked_at = asyncio.Event()
        self._outgoing: asyncio.Queue[worker_pb2.RelayResponse | None] = asyncio.Queue()

    def mount(self, server: aio.Server) -> None:
        """Adds its service."""
        add_WorkerServiceServicer_to_server(self, server)

    async def GetStatus(  # noqa: N802
        self, request: worker_pb2.GetStatusRequest, context: Context
    ) -> worker_pb2.GetStatusResponse:
        """Says that it is there."""
        self.looked_at.set()
        if self.frozen:
            await asyncio.Event().wait()
        return worker_pb2.GetStatusResponse()

    async def Embed(self, request: worker_pb2.EmbedRequest, context: Context) -> worker_pb2.EmbedResponse:  # noqa: N802
        """Each input's length, as its vector."""
        if len(self.embedded) == self.embeds_at_most:
            raise Unreachable("it has gone")
        self.embedded.append(request)
        return worker_pb2.EmbedResponse(
            vectors=[worker_pb2.Vector(values=[float(len(one.ids))]) for one in request.inputs]
        )

    async def Relay(  # noqa: N802
        self, request_iterator: AsyncIterator[worker_pb2.RelayRequest], context: Context
    ) -> AsyncIterator[worker_pb2.RelayResponse]:
        """One line."""
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            while (response := await self._outgoing.get()) is not None:
                yield response
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[worker_pb2.RelayRequest]) -> None:
        async for request in requests:
            if command := command_from(request):
                self.commands.put_nowait(command)
            else:
                self.gateways.append(request.hello.gateway_id)
        self.closed.set()
        self.hang_up()

    async def granted(self) -> Grant:
        """The next command, which is a grant."""
        command = await self.commanded()
        assert isinstance(command, Grant)
        return command

    async def cancelled(self) -> Cancel:
        """The next command, which is a cancel."""
        command = await self.commanded()
        assert isinstance(command, Cancel)
        return command

    async def expects(self) -> Expect:
        """The next command, which has it expect a request."""
        command = await self.commanded()
        assert isinstance(command, Expect)
        return command

    async def sends(self) -> Send:
        """The next command, which has it send one."""
        command = await self.commanded()
        assert isinstance(command, Send)
        return command

    async def abandons(self) -> Abandon:
        """The next command, which ends a move."""
        command = await self.commanded()
        assert isinstance(command, Abandon)
        return command

    async def commanded(self) -> Command:
        """The next command, whatever it is."""
        async with asyncio.timeout(WAIT_S):
            return await self.commands.get()

    def say(self, *news: News) -> None:
        """One step's frames, and what goes with them."""
        self._outgoing.put_nowait(response_to(news))

    def say_farewell(self) -> None:
        """It stops."""
        self._outgoing.put_nowait(response_to([Farewell()]))

    def hang_up(self) -> None:
        """Ends the line in peace."""
        self._outgoing.put_nowait(None)


async def scheduler(stack: AsyncExitStack) -> FakeScheduler:
    """One that listens until the stack is closed."""
    fake = FakeScheduler()
    await fake.start()
    stack.push_async_callback(fake.crash)
    return fake


async def worker(stack: AsyncExitStack) -> FakeWorker:
    """One that listens until the stack is closed."""
    # nobody calls the methods that it lacks
    fake = FakeWorker()  # type: ignore[abstract]
    await fake.start()
    stack.push_async_callback(fake.crash)
    return fake
