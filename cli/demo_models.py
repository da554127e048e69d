"""The models that `up` and `demo` deploy: the trained one, and random ones of other architectures, made on the spot."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import demo
from cli.bar import Bar
from cli.catalogue import checkpoint_text, imported
from cli.process import command
from cli.terminal import Terminal
from mesh.child import end
from mesh.clients.gateway import GatewayClient
from mesh.errors import Broken

TRAINED_DIR = Path(demo.__file__).parent / "model"


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model to deploy; `kind` is one of demo.models.KINDS, empty for the trained one."""

    name: str
    kind: str
    about: str


TRAINED = DemoModel("shorebird", "", "trained on demo/text; knows about shorebirds")
TINY_QWEN = DemoModel("tiny-qwen", "qwen2", "random weights; writes nonsense")
TINY_MIXTRAL = DemoModel("tiny-mixtral", "mixtral", "a mixture of experts with random weights")
MODELS = (TRAINED, TINY_QWEN, TINY_MIXTRAL)


def source_of(model: DemoModel, directory: Path) -> Path:
    """Its Hugging Face directory; those made on the spot are in `directory`."""
    return directory / model.name if model.kind else TRAINED_DIR


def _missing(models: Sequence[DemoModel], directory: Path) -> tuple[str, ...]:
    """What cli.tiny is told: kind and directory of each that is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = [(model.kind, source_of(model, directory)) for model in models]
    return tuple(text for kind, path in wanted if not path.is_dir() for text in (kind, str(path)))


@asynccontextmanager
async def making(models: Sequence[DemoModel], directory: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Makes those that are not in `directory` yet, in a process beside us; await what is yielded to have them."""
    arguments = _missing(models, directory)
    log_path = directory / "making.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command("cli.tiny", arguments), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    async def made() -> None:
        if await process.wait():
            raise Broken(f"the demo's models could not be made; {log_path} says why", reason="NO_DEMO_MODELS")

    try:
        yield made
    finally:
        await end(process, grace_s=0.5)


async def deploy_model(
    terminal: Terminal, client: GatewayClient, model: DemoModel, directory: Path, keep_alive_s: float | None = None
) -> None:
    """Deploys one, and says what it is."""
    source = str(source_of(model, directory).absolute())
    deployed = await imported(
        client.deploy(model.name, source=source, keep_alive_s=keep_alive_s), Bar(terminal.out, indent="  ")
    )
    terminal.out.print(f"  {model.name:<13} {checkpoint_text(deployed.checkpoint)} · {model.about}", soft_wrap=True)
