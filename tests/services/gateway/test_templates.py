"""Chat templates get what transformers' own users would give them, and their refusals are told."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import get_json_schema

from mesh.errors import InvalidRequest, Unsuitable
from services.gateway.templates import Call, Conversation, Tool, Turn, render
from tests.services.gateway.tiny_tokenizers import END, byte_level

PLAIN = """{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
WHOLE = """{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}>
{%- if m.role == 'tool' %}{{ m.name }}#{{ m.tool_call_id }}={% endif %}
{%- if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{- m.content }}
{%- for call in m.tool_calls or [] %}
  {%- for key, value in call.function.arguments.items() %}[{{ call.function.name }} {{ key }}:{{ value }}]{% endfor %}
{%- endfor %}{{ eos_token }}{% endfor %}
{%- if add_generation_prompt %}<assistant>{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"""
STRICT = """{%- if messages[0].role != 'user' %}{{ raise_exception('Conversations begin with user') }}{% endif %}
{{- messages[0].content + 1 if messages[0].content == 'add' else messages[0].content }}"""


def get_current_weather(location: str, days: int = 1) -> str:
    """
    What the weather is

    Args:
        location: A city
        days: How many
    """
    return f"rain in {location} for {days} days"


def templated(template: Any) -> PreTrainedTokenizerFast:
    """A tokenizer with this template, or these."""
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(tokenizer_object=byte_level(), eos_token=END, chat_template=template)
    return made


def schema() -> dict[str, Any]:
    """get_current_weather, as transformers describes it, but for what it returns: that is no part of a request."""
    made: dict[str, Any] = get_json_schema(get_current_weather)
    del made["function"]["return"]
    return made


def weather() -> Tool:
    """The same, as a request describes it."""
    function = schema()["function"]
    return Tool(function["name"], function["description"], function["parameters"])


CALL = Call("call00001", "get_current_weather", {"location": "Bergen", "days": 2})
ASKED = (
    Turn("system", "Be brief."),
    Turn("user", "Will it rain?"),
    Turn("assistant", "", "They want weather.", (CALL,)),
    Turn("tool", "rain", call_id="call00001", name="get_current_weather"),
    Turn("assistant", "It will."),
    Turn("user", "Thanks"),
)
AS_DOCUMENTED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Will it rain?"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "They want weather.",
        "tool_calls": [
            {
                "id": "call00001",
                "type": "function",
                "function": {"name": "get_current_weather", "arguments": {"location": "Bergen", "days": 2}},
            }
        ],
    },
    {"role": "tool", "content": "rain", "tool_call_id": "call00001", "name": "get_current_weather"},
    {"role": "assistant", "content": "It will."},
    {"role": "user", "content": "Thanks"},
]


def test_a_conversation_with_tools_reads_as_transformers_documents_it() -> None:
    templating = templated(WHOLE)
    ours = render(templating, Conversation(ASKED, (weather(),)))
    theirs = templating.apply_chat_template(AS_DOCUMENTED, tools=[schema()], tokenize=False, add_generation_prompt=True)
    assert ours == theirs
    assert "<assistant><think>They want weather.</think>[get_current_weather location:Bergen]" in ours
    assert f"<tool>get_current_weather#call00001=rain{END}" in ours
    assert json.loads(ours.partition("<tools>")[2].partition("</tools>")[0]) == schema()


def test_the_whole_of_a_message_reaches_the_template_and_nothing_that_was_not_said() -> None:
    shown = render(templated("{% for m in messages %}{{ m | tojson }}\n{% endfor %}"), Conversation(ASKED))
    messages = [json.loads(line) for line in shown.splitlines()]
    alias = {"thinking": "They want weather."}  # transformers' own, for gpt-oss
    expected = [one | alias if "reasoning_content" in one else one for one in AS_DOCUMENTED]
    assert messages == expected


def test_template_arguments_are_variables_of_the_template() -> None:
    conversation = Conversation((Turn("user", "Hm?"),), arguments={"enable_thinking": False})
    assert render(templated(WHOLE), conversation) == f"<user>Hm?{END}<assistant><think></think>"


def test_the_last_message_can_be_one_to_go_on_with() -> None:
    turns = (Turn("user", "Sing"), Turn("assistant", "Once upon"))
    shown = render(templated(PLAIN), Conversation(turns, arguments={"continue_final_message": True}))
    assert shown == f"<user>Sing{END}<assistant>Once upon"
    closed = render(templated(PLAIN), Conversation(turns, arguments={"add_generation_prompt": False}))
    assert closed == f"<user>Sing{END}<assistant>Once upon{END}"


def test_of_several_templates_tools_have_their_own_and_others_are_named() -> None:
    templating = templated({"default": "plain", "tool_use": "tools: {{ tools[0].function.name }}", "rag": "rag"})
    user = (Turn("user", "?"),)
    assert render(templating, Conversation(user)) == "plain"
    assert render(templating, Conversation(user, (weather(),))) == "tools: get_current_weather"
    assert render(templating, Conversation(user, arguments={"chat_template": "rag"})) == "rag"
    with pytest.raises(InvalidRequest, match="has those named default, rag, tool_use"):
        render(templating, Conversation(user, arguments={"chat_template": "other"}))


def test_a_template_is_named_and_never_sent() -> None:
    conversation = Conversation((Turn("user", "?"),), arguments={"chat_template": "{{ messages }}"})
    with pytest.raises(InvalidRequest, match="has one template"):
        render(templated(PLAIN), conversation)


@pytest.mark.parametrize("argument", ["tokenize", "tools", "return_dict", "truncation"])
def test_what_is_ours_to_say_is_refused_as_a_template_argument(argument: str) -> None:
    with pytest.raises(InvalidRequest, match=f"template_arguments: must leave out {argument}"):
        render(templated(PLAIN), Conversation((Turn("user", "?"),), arguments={argument: True}))


def test_tools_are_refused_where_the_template_would_leave_them_out() -> None:
    with pytest.raises(Unsuitable, match="knows no tools") as caught:
        render(templated(PLAIN), Conversation((Turn("user", "?"),), (weather(),)))
    assert caught.value.reason == "NO_TOOLS_IN_TEMPLATE"


def test_a_model_without_a_template_is_pointed_to_generate() -> None:
    with pytest.raises(Unsuitable, match="use Generate") as caught:
        render(templated(None), Conversation((Turn("user", "?"),)))
    assert caught.value.reason == "NO_CHAT_TEMPLATE"


@pytest.mark.parametrize(
    ("turn", "words"),
    [(Turn("system", "?"), "Conversations begin with user"), (Turn("user", "add"), "can only concatenate str")],
)
def test_a_templates_refusal_is_the_callers_error_in_its_own_words(turn: Turn, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        render(templated(STRICT), Conversation((turn,)))
    assert caught.value.violations[0].field == "messages"
