"""whimbrel generate: a prompt in, text out as it comes."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

import typer

from cli import sampling, service_class
from cli.answer import show_answer, summary
from cli.measures import parse_duration_s
from cli.telling import in_turn, with_likelihoods
from cli.terminal import Terminal, run
from mesh.clients.gateway import ANSWER_S, GatewayClient
from mesh.clients.gateway_records import AnswerEvent, ChatMessage, SamplingWishes
from mesh.errors import Unsuitable
from mesh.requests import PLAIN, ServiceClass

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
    max_tokens: sampling.MaxTokens = None,
    temperature: sampling.Temperature = None,
    top_k: sampling.TopK = None,
    top_p: sampling.TopP = None,
    min_p: sampling.MinP = None,
    repetition_penalty: sampling.RepetitionPenalty = None,
    presence_penalty: sampling.PresencePenalty = None,
    frequency_penalty: sampling.FrequencyPenalty = None,
    seed: sampling.Seed = None,
    stop: sampling.Stop = None,
    stop_token: sampling.StopToken = None,
    ignore_eos: sampling.IgnoreEos = False,
    logit_bias: sampling.LogitBias = None,
    top_logprobs: sampling.TopLogprobs = None,
    json_schema: sampling.JsonSchema = None,
    regex: sampling.Regex = None,
    json_object: sampling.JsonObject = False,
    answers: sampling.Answers = 1,
    tenant: service_class.Tenant = "",
    priority: service_class.PriorityBand = service_class.PriorityChoice.NORMAL,
    first_token_within: service_class.FirstTokenWithin = "",
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Give up after this long.")] = "10m",
) -> None:
    """Streams a model's answer to stdout.

    A model that is not loaded is loaded first; a bar on stderr shows how far that is. Ctrl-C cancels the request.
    What is not given is left to the model's own defaults.
    """
    terminal: Terminal = context.obj
    wishes = SamplingWishes(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop=tuple(stop or ()),
        stop_token_ids=tuple(stop_token or ()),
        ignore_eos=ignore_eos,
        logit_bias=sampling.biases_of(logit_bias),
        top_logprobs=top_logprobs,
        guide=sampling.guide_of(json_schema, regex, json_object),
    )
    text = sys.stdin.read() if prompt == FROM_STDIN else prompt
    asked = service_class.service_of(tenant, priority, first_token_within)
    asking = _Asking(model, text, wishes, chat, answers, asked, parse_duration_s(deadline))
    run(terminal, _generate(terminal, asking))


@dataclass(frozen=True, slots=True)
class _Asking:
    """What was asked for."""

    model: str
    prompt: str
    wishes: SamplingWishes
    chat: bool | None
    answers: int
    service: ServiceClass
    within_s: float


async def _generate(terminal: Terminal, asking: _Asking) -> None:
    watched = terminal.out.is_terminal
    async with terminal.client() as client:
        events = ask(
            client,
            asking.model,
            asking.prompt,
            asking.wishes,
            chat=asking.chat,
            answers=asking.answers,
            service=asking.service,
            within_s=asking.within_s,
        )
        if asking.wishes.top_logprobs is not None:
            events = with_likelihoods(events)
        if asking.answers > 1:
            events = in_turn(events, asking.answers)
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
    answers: int = 1,
    service: ServiceClass = PLAIN,
    within_s: float = ANSWER_S,
) -> AsyncGenerator[AnswerEvent]:
    """`prompt` as a user's turn, or with chat=False bare; None chats with a model that has a template."""
    if chat is not False:
        turns = [ChatMessage("user", prompt)]
        said = client.chat(model, turns, wishes, answers=answers, service=service, within_s=within_s)
        try:
            async with aclosing(said) as events:
                async for event in events:
                    yield event
            return
        except Unsuitable as error:
            if chat or error.reason != NO_CHAT_TEMPLATE:
                raise
    said = client.generate(model, prompt, wishes, answers=answers, service=service, within_s=within_s)
    async with aclosing(said) as events:
        async for event in events:
            yield event
