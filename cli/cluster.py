"""A whole cluster on this machine: Valkey, a scheduler, a store, a gateway and workers, each its own process."""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cli.process import Program, ServiceProcess
from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient
from mesh.errors import NotFound, Unreachable, Unsuitable
from mesh.facts import Kind
from mesh.state.embedded import embedded_redis

HOST = "127.0.0.1"
END_ORDER = (Kind.GATEWAY, Kind.WORKER, Kind.SCHEDULER, Kind.STORE)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What to start, and where it keeps things."""

    data_dir: Path  # checkpoints, logs and, with keep_state, the catalogue
    workers: int = 2
    schedulers: int = 1  # one leads, the others stand by
    gateways: int = 1
    stores: int = 1  # one a node: say with settings_of which node each further one, and which workers, are on
    redis_url: str = ""  # of a Redis that is there; empty: one of the cluster's own
    gateway_port: int = 0  # of the first one; 0: any free one, as the others have
    keep_state: bool = False  # the state outlives the cluster, in data_dir
    settings: Mapping[str, str] = field(default_factory=dict)  # environment of every process
    settings_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by kind or id, over the former
    start_s: float = 120.0  # until every process must serve
    grace_s: float = 8.0  # between SIGTERM and SIGKILL

    def store_dir(self, store_id: str) -> Path:
        """Where a store keeps its checkpoints; the first one's has no number."""
        return self.data_dir / ("store" if store_id == "store-1" else store_id)


class LocalCluster:
    """A running cluster, as an async context manager. Enter it in the main thread: its processes die with the
    thread that started them, however it ends.

    `on_serving` is called with each process when it serves.
    """

    def __init__(self, options: ClusterOptions, on_serving: Callable[[ServiceProcess], None] | None = None) -> None:
        self.options = options
        self.redis_url = ""
        self._on_serving = on_serving
        self._processes: dict[str, ServiceProcess] = {}
        self._exits: asyncio.Queue[ServiceProcess] = asyncio.Queue()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        options = self.options
        async with AsyncExitStack() as stack:
            (options.data_dir / "logs").mkdir(parents=True, exist_ok=True)
            stack.enter_context(_only_user_of(options.data_dir))
            _check_free(options.gateway_port)
            self.redis_url = options.redis_url or await stack.enter_async_context(embedded_redis(_state_dir(options)))
            stack.push_async_callback(self._end_all)
            for program in programs(options, self.redis_url):
                await self._launch(program)
            await self._all_serve(list(self._processes.values()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def gateway_address(self) -> str:
        """host:port of the first gateway."""
        return self.process("gateway-1").address.result()

    @property
    def gateway_addresses(self) -> tuple[str, ...]:
        """host:port of every gateway."""
        return tuple(p.address.result() for p in self.processes if p.program.kind is Kind.GATEWAY)

    @property
    def processes(self) -> tuple[ServiceProcess, ...]:
        """All of them, dead ones too, in the order they were started in."""
        return tuple(self._processes.values())

    def process(self, process_id: str) -> ServiceProcess:
        """One of them, such as "worker-1"; NotFound names those there are."""
        if process_id not in self._processes:
            raise NotFound(f"no process {process_id!r}; there are {', '.join(self._processes)}")
        return self._processes[process_id]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[GatewayClient]:
        """A client of the gateway, which by then knows every process that lives."""
        address = self.gateway_address
        async with connect(address) as channel:
            client = GatewayClient(channel, address)
            await self._all_known(client)
            yield client

    async def kill(self, process_id: str) -> None:
        """SIGKILL; returns when the process is gone."""
        process = self.process(process_id)
        process.kill()
        await process.end(0.0)

    async def end(self, process_id: str) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when the process is gone."""
        await self.process(process_id).end(self.options.grace_s)

    async def restart(self, process_id: str) -> ServiceProcess:
        """Ends it if it lives, and starts it again under its id; a gateway keeps its port. Returns when it serves."""
        old = self.process(process_id)
        await old.end(self.options.grace_s)
        program = old.program
        if program.kind is Kind.GATEWAY and old.address.done() and not old.address.exception():
            port = old.address.result().rpartition(":")[2]
            program = replace(program, settings={**program.settings, "WHIMBREL_PORT": port})
        process = await self._launch(program)
        try:
            await self._all_serve([process])
        except Unreachable:
            await process.end(self.options.grace_s)
            raise
        return process

    async def unexpected_exits(self) -> AsyncIterator[ServiceProcess]:
        """Each process that ends without having been told to, when it does."""
        while True:
            process = await self._exits.get()
            if process.wanted:
                yield process

    async def _launch(self, program: Program) -> ServiceProcess:
        process = ServiceProcess(program, self.options.data_dir / "logs" / f"{program.id}.log")
        self._processes[program.id] = process
        process.ended.add_done_callback(lambda _: self._exits.put_nowait(process))
        await process.start()
        return process

    async def _all_serve(self, processes: list[ServiceProcess]) -> None:
        """Returns when all serve; raises Unreachable at the first that ended, or when time is up."""
        if self._on_serving:
            for process in processes:
                process.address.add_done_callback(_serving_callback(self._on_serving, process))
        addresses = [process.address for process in processes]
        done, late = await asyncio.wait(addresses, timeout=self.options.start_s, return_when=asyncio.FIRST_EXCEPTION)
        for address in done:
            address.result()
        if late:
            slow = next(process for process in processes if process.address in late)
            raise Unreachable(
                f"{slow.program.id} did not serve within {self.options.start_s:g} s; "
                f"the end of {slow.log}:\n{slow.tail()}",
                reason="PROCESS_SLOW",
            )

    async def _all_known(self, client: GatewayClient) -> None:
        missing = {process.program.id for process in self.processes if not process.ended.done()}
        try:
            async with asyncio.timeout(self.options.start_s), aclosing(client.watch_cluster()) as changes:
                async for change in changes:
                    missing -= {change.member.id} if change.member else set()
                    if not missing:
                        return
        except TimeoutError as error:
            names = ", ".join(sorted(missing))
            raise Unreachable(f"the gateway does not know of {names}; see the logs", reason="NOT_JOINED") from error

    async def _end_all(self) -> None:
        try:
            for kind in END_ORDER:
                ending = [p for p in self.processes if p.program.kind is kind]
                await asyncio.gather(*(process.end(self.options.grace_s) for process in ending))
        finally:
            for process in self.processes:
                process.kill()  # those still there when we were cancelled


def programs(options: ClusterOptions, redis_url: str) -> tuple[Program, ...]:
    """The services of a cluster, with their settings; the workers share the cores and half of the memory."""
    sharing = max(1, options.workers)  # none at all is a cluster too: it imports, and tells what it has
    threads = max(1, len(os.sched_getaffinity(0)) // sharing)
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // sharing
    shared = {
        "WHIMBREL_REDIS_URL": redis_url,
        "WHIMBREL_HOST": HOST,
        "WHIMBREL_PORT": "0",
        "WHIMBREL_ADVERTISE": "",
        "WHIMBREL_GRACE_S": "5",
    }
    own: dict[Kind, Mapping[str, str]] = {
        Kind.WORKER: {
            "OMP_NUM_THREADS": str(threads),
            # Threads that spin for each other on a busy machine made a small model 20 to 60 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            "WHIMBREL_MEMORY_BYTES": str(memory_bytes),
        },
    }
    counts = {
        Kind.SCHEDULER: options.schedulers,
        Kind.STORE: options.stores,
        Kind.GATEWAY: options.gateways,
        Kind.WORKER: options.workers,
    }
    names = [(kind, f"{kind}-{number}") for kind, count in counts.items() for number in range(1, count + 1)]
    return tuple(_program(options, kind, name, {**shared, **own.get(kind, {})}) for kind, name in names)


def _program(options: ClusterOptions, kind: Kind, process_id: str, settings: Mapping[str, str]) -> Program:
    given = {"WHIMBREL_PORT": str(options.gateway_port)} if process_id == "gateway-1" else {}
    if kind is Kind.STORE:
        given = {"WHIMBREL_STORE_DIR": str(options.store_dir(process_id).absolute())}
    told = [given, options.settings, options.settings_of.get(kind, {}), options.settings_of.get(process_id, {})]
    merged = {**settings, "WHIMBREL_ID": process_id}
    for more in told:
        merged.update(more)
    return Program(kind, process_id, merged)


def _serving_callback(
    on_serving: Callable[[ServiceProcess], None], process: ServiceProcess
) -> Callable[[asyncio.Future[str]], None]:
    def call(address: asyncio.Future[str]) -> None:
        if not address.cancelled() and not address.exception():
            on_serving(process)

    return call


def _state_dir(options: ClusterOptions) -> Path | None:
    if not options.keep_state:
        return None
    directory = options.data_dir.absolute() / "redis"
    directory.mkdir(exist_ok=True)
    return directory


@contextmanager
def _only_user_of(data_dir: Path) -> Iterator[None]:
    """Holds the directory's lock; the kernel frees it however this process ends."""
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unsuitable(
                f"another cluster runs in {data_dir}; end it first, or take another directory with --data",
                reason="DATA_IN_USE",
            ) from error
        yield


def _check_free(port: int) -> None:
    """Unsuitable when somebody listens on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Unsuitable(
                f"port {port} on {HOST} cannot be listened on ({error.strerror}); take another with --gateway-port,"
                " where 0 is any free one",
                reason="PORT_IN_USE",
            ) from error
