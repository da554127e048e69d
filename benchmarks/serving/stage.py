"""What the parts of the benchmark share: one local cluster, models deployed in it, and workers of their own."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import child
from benchmarks.models import random_llama
from benchmarks.series import BenchmarkBroken
from cli.cluster import HOST, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, Delta, Finished, Model, ModelState, SamplingWishes, Started

FOREVER_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model of the cluster, and the Hugging Face directory that it came from."""

    model: Model
    source: Path

    @property
    def digest(self) -> str:
        """Its checkpoint."""
        return self.model.checkpoint.digest


class Stage:
    """A running cluster and a client of its gateway; random models lie in `models_dir`."""

    def __init__(
        self, cluster: LocalCluster, client: GatewayClient, models_dir: Path, *, quick: bool, say: Callable[[str], None]
    ) -> None:
        self.cluster, self.client, self.quick, self.say = cluster, client, quick, say
        self._models_dir = models_dir
        self._by_size: dict[float, Deployed] = {}

    async def deploy(self, name: str, parameters_b: float, keep_alive_s: float = FOREVER_S) -> Deployed:
        """A random Llama of so many billion weights; one of a size is made and imported once."""
        known = self._by_size.get(parameters_b)
        if known:
            model = await self._deploy(name, keep_alive_s, checkpoint=known.digest)
            return Deployed(model, known.source)
        self.say(f"making a random Llama of {parameters_b:g} billion bfloat16 weights")
        source = await random_llama(self._models_dir, parameters_b)
        deployed = Deployed(await self._deploy(name, keep_alive_s, source=str(source)), source)
        self._by_size[parameters_b] = deployed
        return deployed

    async def _deploy(self, name: str, keep_alive_s: float, *, source: str = "", checkpoint: str = "") -> Model:
        events = self.client.deploy(name, source=source, checkpoint=checkpoint, keep_alive_s=keep_alive_s)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Model):
                    return event
        raise BenchmarkBroken(f"deploying {name} ended without a model")

    async def until(self, name: str, state: ModelState) -> None:
        """Returns when the gateway shows the model in that state."""
        async with aclosing(self.client.watch([name])) as changes:
            async for change in changes:
                if change.model and change.model.state is state:
                    return

    @asynccontextmanager
    async def worker(self, module: str, settings: Mapping[str, str]) -> AsyncIterator[int]:
        """A worker of the cluster beside those that it has: `module` in a process, until the block ends. Its pid."""
        own = {"WHIMBREL_REDIS_URL": self.cluster.redis_url, "WHIMBREL_HOST": HOST, "WHIMBREL_PORT": "0"}
        async with child(module, settings={**own, **settings}) as process:
            await process.answer()  # the line that says where it listens
            yield process.pid


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, as its client saw it."""

    started: Started
    first_token: int
    first_s: float  # from the call to the first token
    finished: Finished


async def read(events: AsyncGenerator[AnswerEvent], now: Callable[[], float]) -> Answer:
    """Follows an answer to its end. Create the iteration just before: its call has begun."""
    began_s = now()
    started: Started | None = None
    first: tuple[int, float] | None = None
    async with aclosing(events):
        async for event in events:
            match event:
                case Started():
                    started = event
                case Delta(token_ids=tokens) if tokens and first is None:
                    first = tokens[0], now() - began_s
                case Finished() if started and first:
                    return Answer(started, *first, event)
    raise BenchmarkBroken("an answer ended before its time; see the gateway's log")


def greedy(tokens: int) -> SamplingWishes:
    """Exactly that many tokens, each the likeliest."""
    return SamplingWishes(max_tokens=tokens, temperature=0.0, ignore_eos=True)
