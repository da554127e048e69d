"""whimbrel chat: a conversation, a line a turn."""

import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import service_class
from cli.answer import show_answer, summary
from cli.lines import lines
from cli.measures import parse_duration_s
from cli.terminal import Terminal, run
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, ChatMessage, Delta, SamplingWishes, Tool
from mesh.errors import MeshError
from mesh.requests import ServiceClass

PROMPT = "> "


def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a deployed model.")],
    *,
    system: Annotated[str, typer.Option(metavar="TEXT", help="What the model is told first.")] = "",
    tools: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Functions it may call: a JSON list of their schemas."
        ),
    ] = None,
    template_arguments: Annotated[
        str, typer.Option(metavar="JSON", help='More for its chat template, such as {"enable_thinking": false}.')
    ] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; above, more varied. 0 to 2.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answers.")] = None,
    tenant: service_class.Tenant = "",
    priority: service_class.PriorityBand = service_class.PriorityChoice.NORMAL,
    first_token_within: service_class.FirstTokenWithin = "",
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Give up on an answer after this long.")] = "10m",
) -> None:
    """Talks with a model: each line of stdin is a turn, each answer is streamed to stdout.

    The model gets the whole conversation with each turn. Ctrl-D ends it, Ctrl-C also breaks off an answer.
    """
    terminal: Terminal = context.obj
    wishes = SamplingWishes(max_tokens=max_tokens, temperature=temperature, seed=seed)
    turns = [ChatMessage("system", system)] if system else []
    talk = _Talk(
        terminal,
        model,
        wishes,
        turns,
        _tools(tools),
        template_arguments,
        service_class.service_of(tenant, priority, first_token_within),
        parse_duration_s(deadline),
    )
    run(terminal, talk.go())


@dataclass(slots=True)
class _Talk:
    """The conversation so far, and how each answer is asked for."""

    terminal: Terminal
    model: str
    wishes: SamplingWishes
    turns: list[ChatMessage]
    tools: Sequence[Tool]
    template_arguments: str
    service: ServiceClass
    within_s: float

    async def go(self) -> None:
        """To the end of stdin."""
        async with self.terminal.client() as client, aclosing(lines(sys.stdin.fileno())) as said:
            self._ready()
            async for line in said:
                if line.strip():
                    await self._answer(client, line)
                self._ready()

    def _ready(self) -> None:
        if self.terminal.out.is_terminal:
            self.terminal.write(PROMPT)

    async def _answer(self, client: GatewayClient, line: str) -> None:
        """One turn; at a terminal an error takes back what was said, and not the whole conversation."""
        self.turns.append(ChatMessage("user", line))
        try:
            self.turns.append(ChatMessage("assistant", await self._heard(client)))
        except MeshError as error:
            if not self.terminal.out.is_terminal:
                raise
            self.terminal.failed(error)
            self.turns.pop()

    async def _heard(self, client: GatewayClient) -> str:
        heard: list[str] = []
        progress = self.terminal.err if self.terminal.out.is_terminal else None
        finished = await show_answer(self.terminal, _overheard(self._asked(client), heard), progress=progress)
        if progress:
            progress.print(summary(finished), style="dim", soft_wrap=True)
        return "".join(heard)

    def _asked(self, client: GatewayClient) -> AsyncGenerator[AnswerEvent]:
        return client.chat(
            self.model,
            self.turns,
            self.wishes,
            tools=self.tools,
            template_arguments=self.template_arguments,
            service=self.service,
            within_s=self.within_s,
        )


async def _overheard(events: AsyncGenerator[AnswerEvent], heard: list[str]) -> AsyncGenerator[AnswerEvent]:
    """The events; their text is added to `heard`."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                heard.append(event.text)
            yield event


def _tools(path: Path | None) -> tuple[Tool, ...]:
    """The functions of a file, each as {"name", "description", "parameters"}, bare or in {"function": ...}."""
    if path is None:
        return ()
    try:
        functions: list[dict[str, Any]] = [one.get("function", one) for one in json.loads(path.read_text())]
        return tuple(
            Tool(one["name"], one.get("description", ""), json.dumps(one.get("parameters", {}))) for one in functions
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise typer.BadParameter(f"{path} is no JSON list of functions with names: {error!r}") from error
