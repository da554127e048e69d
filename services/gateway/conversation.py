"""A conversation off the wire: what is JSON there becomes objects; every wrong field is named at once."""

from collections.abc import Mapping

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.checkpoint import strict_json
from mesh.errors import InvalidRequest, Violation
from services.gateway.templates import Call, Conversation, Tool, Turn

MOST_TOOLS = 1024
NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}


def conversation_from(request: pb.ChatRequest) -> Conversation:
    """What a chat is about. Raises InvalidRequest."""
    if not request.messages:
        raise InvalidRequest.field("messages", "must have at least one", reason="EMPTY_PROMPT")
    reader = _Reader()
    conversation = Conversation(
        turns=tuple(reader.turn(f"messages[{n}]", message) for n, message in enumerate(request.messages)),
        tools=tuple(reader.tool(f"tools[{n}]", tool) for n, tool in enumerate(request.tools)),
        arguments=reader.parsed("template_arguments", request.template_arguments),
    )
    reader.check(len(request.tools) <= MOST_TOOLS, "tools", f"must be at most {MOST_TOOLS}")
    reader.finish()
    return conversation


class _Reader:
    """Reads a request's parts, and notes what is wrong with them."""

    def __init__(self) -> None:
        self._wrong: list[Violation] = []

    def check(self, right: bool, field: str, otherwise: str) -> None:
        """Notes `otherwise` of a field that is not right."""
        if not right:
            self._wrong.append(Violation(field, otherwise))

    def finish(self) -> None:
        """Raises what was noted."""
        if self._wrong:
            text = "; ".join(f"{violation.field} {violation.description}" for violation in self._wrong)
            raise InvalidRequest(text, reason="BAD_CONVERSATION", violations=tuple(self._wrong))

    def parsed(self, field: str, text: str, otherwise: Mapping[str, object] | None = None) -> Mapping[str, object]:
        """A JSON object; `otherwise`, or an empty one, where there is no text."""
        if not text:
            return otherwise or {}
        try:
            value = strict_json.loads(text.encode())
        except ValueError as error:
            self.check(False, field, f"must be a JSON object: {error}")
            return {}
        self.check(isinstance(value, dict), field, "must be a JSON object")
        return value if isinstance(value, dict) else {}

    def turn(self, field: str, message: pb.ChatMessage) -> Turn:
        """One message."""
        self.check(bool(message.role), f"{field}.role", "must not be empty")
        calls = tuple(self._call(f"{field}.tool_calls[{n}]", call) for n, call in enumerate(message.tool_calls))
        return Turn(message.role, message.content, message.reasoning, calls, message.tool_call_id, message.name)

    def tool(self, field: str, tool: pb.Tool) -> Tool:
        """One tool."""
        self.check(bool(tool.name), f"{field}.name", "must not be empty")
        return Tool(tool.name, tool.description, self.parsed(f"{field}.parameters", tool.parameters, NO_PARAMETERS))

    def _call(self, field: str, call: pb.ToolCall) -> Call:
        self.check(bool(call.name), f"{field}.name", "must not be empty")
        return Call(call.id, call.name, self.parsed(f"{field}.arguments", call.arguments))
