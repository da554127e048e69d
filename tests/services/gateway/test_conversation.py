"""A chat off the wire: JSON becomes objects, and every wrong field is named at once."""

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.errors import InvalidRequest
from services.gateway.conversation import NO_PARAMETERS, conversation_from
from services.gateway.templates import Call, Conversation, Tool, Turn


def refused(request: pb.ChatRequest) -> dict[str, str]:
    """What an InvalidRequest says of each field."""
    with pytest.raises(InvalidRequest) as caught:
        conversation_from(request)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_everything_that_a_chat_can_say_is_taken() -> None:
    request = pb.ChatRequest(
        messages=[
            pb.ChatMessage(role="user", content="Will it rain?", name="ada"),
            pb.ChatMessage(
                role="assistant",
                reasoning="hm",
                tool_calls=[pb.ToolCall(id="1", name="weather", arguments='{"days": 2, "at": {"city": "Bergen"}}')],
            ),
            pb.ChatMessage(role="tool", content="rain", tool_call_id="1", name="weather"),
        ],
        tools=[
            pb.Tool(name="weather", description="Tells it", parameters='{"type": "object", "properties": {"a": {}}}'),
            pb.Tool(name="now"),
        ],
        template_arguments='{"enable_thinking": false}',
    )
    assert conversation_from(request) == Conversation(
        turns=(
            Turn("user", "Will it rain?", name="ada"),
            Turn("assistant", "", "hm", (Call("1", "weather", {"days": 2, "at": {"city": "Bergen"}}),)),
            Turn("tool", "rain", call_id="1", name="weather"),
        ),
        tools=(
            Tool("weather", "Tells it", {"type": "object", "properties": {"a": {}}}),
            Tool("now", "", NO_PARAMETERS),
        ),
        arguments={"enable_thinking": False},
    )


def test_every_wrong_field_is_named() -> None:
    calls = [pb.ToolCall(name="", arguments="[1]"), pb.ToolCall(name="f", arguments="{")]
    request = pb.ChatRequest(
        messages=[pb.ChatMessage(content="?"), pb.ChatMessage(role="assistant", tool_calls=calls)],
        tools=[pb.Tool(parameters='"text"')],
        template_arguments="true",
    )
    assert set(refused(request)) == {
        "messages[0].role",
        "messages[1].tool_calls[0].name",
        "messages[1].tool_calls[0].arguments",
        "messages[1].tool_calls[1].arguments",
        "tools[0].name",
        "tools[0].parameters",
        "template_arguments",
    }


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a":' * 100_000])
def test_only_a_json_object_is_taken_for_one(text: str) -> None:
    request = pb.ChatRequest(messages=[pb.ChatMessage(role="user")], template_arguments=text)
    assert refused(request)["template_arguments"].startswith("must be a JSON object")


def test_a_chat_without_messages_and_one_with_too_many_tools_are_refused() -> None:
    assert refused(pb.ChatRequest()) == {"messages": "must have at least one"}
    request = pb.ChatRequest(messages=[pb.ChatMessage(role="user")], tools=[pb.Tool(name="f")] * 1025)
    assert refused(request) == {"tools": "must be at most 1024"}
