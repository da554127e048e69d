"""The whimbrel command: its options and its list of commands. What each does is in the module of its name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from cli.catalogue import delete, deploy, import_, models
from cli.chat import chat
from cli.demo import demo
from cli.drain import drain, undrain
from cli.embed import embed
from cli.explain import explain
from cli.generate import generate
from cli.migrate import migrate, requests
from cli.status import status
from cli.terminal import Terminal
from cli.tiers import evict, prefetch
from cli.up import GATEWAY_PORT, up
from cli.versions import rollback, update


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand, and the example that its help ends with."""

    name: str
    run: Callable[..., None]
    example: str


COMMANDS = (
    Command("demo", demo, "whimbrel demo"),
    Command("up", up, "whimbrel up --workers 2"),
    Command("deploy", deploy, "whimbrel deploy shorebird ./demo/model --keep-alive 5m"),
    Command("import", import_, "whimbrel import hf://HuggingFaceTB/SmolLM2-135M-Instruct"),
    Command("update", update, "whimbrel update shorebird ./newer/model"),
    Command("rollback", rollback, "whimbrel rollback shorebird"),
    Command(
        "prefetch",
        prefetch,
        "whimbrel prefetch shorebird --tier dram --store store-1, or: whimbrel prefetch --checkpoint DIGEST",
    ),
    Command("evict", evict, "whimbrel evict shorebird --tier dram, or: whimbrel evict --checkpoint DIGEST --tier disk"),
    Command("delete", delete, "whimbrel delete shorebird"),
    Command("models", models, "whimbrel models"),
    Command("generate", generate, 'whimbrel generate shorebird "What is a whimbrel?" --max-tokens 100'),
    Command("chat", chat, "whimbrel chat shorebird --system 'You know birds.'"),
    Command("embed", embed, 'whimbrel embed finder "a bird of the shore" "a ship"'),
    Command("explain", explain, "whimbrel explain shorebird"),
    Command("requests", requests, "whimbrel requests"),
    Command("migrate", migrate, "whimbrel migrate 0e8b3c5a --to worker-2"),
    Command("drain", drain, "whimbrel drain worker-1, or: whimbrel drain --node gpu-box-7"),
    Command("undrain", undrain, "whimbrel undrain worker-1"),
    Command("status", status, "whimbrel status --watch"),
)


def make_app() -> typer.Typer:
    """The command, ready to be called."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback(epilog="Example: whimbrel --gateway 10.0.0.5:50051 status")(_globals)
    for command in COMMANDS:
        app.command(command.name, epilog=f"Example: {command.example}")(command.run)
    return app


def main() -> None:
    """Entry point of the `whimbrel` program."""
    make_app()()


def _globals(
    context: typer.Context,
    *,
    gateway: Annotated[
        str,
        typer.Option(
            envvar="WHIMBREL_GATEWAY",
            metavar="HOST:PORT,...",
            help="The gateway to talk to, and others where an answer goes on when it dies.",
        ),
    ] = f"127.0.0.1:{GATEWAY_PORT}",
) -> None:
    """Serverless LLM serving: many models, few devices, and none spent on a model that nobody uses.

    Begin with `whimbrel demo`, or `whimbrel up` and then `whimbrel generate` in another terminal.
    """
    gateways = gateway.split(",")
    for one in gateways:
        host, _, port = one.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise typer.BadParameter(f"{one!r} is no HOST:PORT, such as 127.0.0.1:{GATEWAY_PORT}")
    context.obj = Terminal.open(*gateways)
