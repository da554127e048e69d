"""whimbrel generate: a prompt in, text out as it comes."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer

from cli.answer import show_answer, summary
from cli.measures import parse_duration_s
from cli.terminal import Terminal, run
from mesh.clients.gateway import ANSWER_S, GatewayClient
from mesh.clients.gateway_records import AnswerEvent, ChatMessage, SamplingWishes
from mesh.errors import Unsuitable

NO_CHAT_TEMPLATE = "NO_CHAT_TEMPLATE"  # the gateway's reason
FROM_STDIN = "-"


def generate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a deployed model.")],
    prompt: Annotated[str, typer.Argument(help='The prompt; "-" reads it from stdin.')],
    *,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="Ask as a user, or have the bare prompt continued. Not given: chat, if the model has a template.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; above, more varied. 0 to 2.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Only the k most likely tokens; 0 is all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the tokens that make up this probability.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")] = None,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Give up after this long.")] = "10m",
) -> None:
    """Streams a model's answer to stdout.

    A model that is not loaded is loaded first; a bar on stderr shows how far that is. Ctrl-C cancels the request.
    What is not given is left to the model's own defaults.
    """
    terminal: Terminal = context.obj
    wishes = SamplingWishes(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=tuple(stop or ())
    )
    text = sys.stdin.read() if prompt == FROM_STDIN else prompt
    run(terminal, _generate(terminal, model, text, wishes, chat=chat, within_s=parse_duration_s(deadline)))


async def _generate(
    terminal: Terminal, model: str, prompt: str, wishes: SamplingWishes, *, chat: bool | None, within_s: float
) -> None:
    watched = terminal.out.is_terminal
    async with terminal.client() as client:
        events = ask(client, model, prompt, wishes, chat=chat, within_s=within_s)
        finished = await show_answer(terminal, events, progress=terminal.err if watched else None)
    if watched:
        terminal.err.print(summary(finished), style="dim", soft_wrap=True)


async def ask(
    client: GatewayClient,
    model: str,
    prompt: str,
    wishes: SamplingWishes,
    *,
    chat: bool | None = None,
    within_s: float = ANSWER_S,
) -> AsyncGenerator[AnswerEvent]:
    """`prompt` as a user's turn, or with chat=False bare; None chats with a model that has a template."""
    if chat is not False:
        turns = [ChatMessage("user", prompt)]
        try:
            async with aclosing(client.chat(model, turns, wishes, within_s=within_s)) as events:
                async for event in events:
                    yield event
            return
        except Unsuitable as error:
            if chat or error.reason != NO_CHAT_TEMPLATE:
                raise
    async with aclosing(client.generate(model, prompt, wishes, within_s=within_s)) as events:
        async for event in events:
            yield event
