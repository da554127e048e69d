"""Chat templates: a conversation as transformers hands it to the template that came with the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from mesh.errors import InvalidRequest, Unsuitable

NAMED = "chat_template"  # the template argument that says which one, where a model has several
OURS = frozenset(
    {"conversation", "messages", "tools", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length",
     "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)  # fmt: skip
"""What apply_chat_template takes and a request may not say."""
REFUSALS = (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What a template raises when it gets what it does not expect."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function that an assistant called."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation; what is empty is not said."""

    role: str
    content: str
    reasoning: str = ""  # of an assistant, before its content
    calls: tuple[Call, ...] = ()  # of an assistant
    call_id: str = ""  # of a tool: what it answers
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a template is given. `arguments` are variables of its own, and transformers' add_generation_prompt (true
    unless said), continue_final_message, documents and chat_template (a name)."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    arguments: Mapping[str, object] | None = None


def render(templating: Any, conversation: Conversation) -> str:
    """The conversation as the template of the tokenizer `templating` writes it. Unsuitable if the model has none, or
    none that knows tools; InvalidRequest with the template's own words if it refuses the conversation."""
    arguments = dict(conversation.arguments or {})
    name = _chosen(templating.chat_template, arguments)
    tools = [_schema(tool) for tool in conversation.tools] or None
    arguments.setdefault("add_generation_prompt", not arguments.get("continue_final_message", False))
    try:
        if tools and "tools" not in templating.get_chat_template(name, tools):
            raise Unsuitable("this model's chat template knows no tools; send none", reason="NO_TOOLS_IN_TEMPLATE")
        messages = [_message(turn) for turn in conversation.turns]
        return str(
            templating.apply_chat_template(messages, tools=tools, chat_template=name, tokenize=False, **arguments)
        )
    except REFUSALS as error:
        raise InvalidRequest.field("messages", f"the chat template refuses them: {error}") from error


def _chosen(templates: object, arguments: dict[str, object]) -> str | None:
    """The name of the template asked for, taken out of the arguments; None leaves it to transformers."""
    if not templates:
        raise Unsuitable("this model has no chat template; use Generate", reason="NO_CHAT_TEMPLATE")
    if ours := sorted(OURS & arguments.keys()):
        raise InvalidRequest.field("template_arguments", f"must leave out {', '.join(ours)}")
    name = arguments.pop(NAMED, None)
    names = sorted(templates) if isinstance(templates, dict) else []
    if name is None or name in names:
        return None if name is None else str(name)
    known = f"has those named {', '.join(names)}" if names else "has one template, without a name"
    raise InvalidRequest.field("template_arguments", f"{NAMED} is {name!r}, but this model {known}")


def _message(turn: Turn) -> dict[str, object]:
    """In transformers' words, which give reasoning to each template under the name that it reads."""
    more = {
        "reasoning_content": turn.reasoning,
        "tool_calls": [_call(call) for call in turn.calls],
        "tool_call_id": turn.call_id,
        "name": turn.name,
    }
    return {"role": turn.role, "content": turn.content} | {key: value for key, value in more.items() if value}


def _call(call: Call) -> dict[str, object]:
    function = {"name": call.name, "arguments": dict(call.arguments)}
    return ({"id": call.id} if call.id else {}) | {"type": "function", "function": function}


def _schema(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}
