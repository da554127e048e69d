"""The options that say how an answer is chosen, and the wishes that they make."""

from pathlib import Path
from typing import Annotated

import typer

from mesh.requests import Guide, GuideKind, TokenBias

MaxTokens = Annotated[int | None, typer.Option(min=1, help="Most tokens to generate.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy; above, more varied. 0 to 2.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Only the k most likely tokens; 0 is all.")]
TopP = Annotated[float | None, typer.Option(help="Only the tokens that make up this probability.")]
MinP = Annotated[float | None, typer.Option(help="Only tokens this many times as likely as the likeliest.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1: fewer tokens of prompt and answer again.")]
PresencePenalty = Annotated[float | None, typer.Option(help="Above 0: fewer tokens that the answer has. -2 to 2.")]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Above 0: the fewer, the more often it has them. -2 to 2.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")]
StopToken = Annotated[list[int] | None, typer.Option(min=0, help="Token id that ends it; may be repeated.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on after the model's own end.")]
LogitBias = Annotated[
    list[str] | None,
    typer.Option(metavar="ID=BIAS", help="Added to a token's logit, -100 to 100; -100 bans it. May be repeated."),
]
TopLogprobs = Annotated[
    int | None,
    typer.Option(min=0, max=20, help="Show each token's log-probability and those of so many likeliest, a line each."),
]
Answers = Annotated[int, typer.Option("--answers", "-n", min=1, max=16, help="How many answers to give.")]
JsonSchema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Keep the answer to this JSON schema."),
]
Regex = Annotated[str | None, typer.Option(help="Keep the whole answer to this expression.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Have any JSON object for an answer.")]


def guide_of(json_schema: Path | None, regex: str | None, json_object: bool) -> Guide | None:
    """The one guide that was asked for, if any was."""
    guides = [Guide(GuideKind.JSON_SCHEMA, json_schema.read_text())] if json_schema else []
    guides += [Guide(GuideKind.REGEX, regex)] if regex is not None else []
    guides += [Guide(GuideKind.JSON_OBJECT)] if json_object else []
    if len(guides) > 1:
        raise typer.BadParameter("an answer keeps to one of --json-schema, --regex and --json")
    return guides[0] if guides else None


def biases_of(texts: list[str] | None) -> tuple[TokenBias, ...]:
    """From "ID=BIAS" each."""
    return tuple(_bias(text) for text in texts or ())


def _bias(text: str) -> TokenBias:
    token, _, bias = text.partition("=")
    try:
        if int(token) >= 0:
            return TokenBias(int(token), float(bias))
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is no ID=BIAS, such as 1234=-100", param_hint="--logit-bias")
