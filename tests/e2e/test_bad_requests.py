"""Requests that cannot be served are refused with the right status, a reason, and the fields that are wrong."""

import math
from contextlib import aclosing

import pytest

from mesh.clients.gateway_records import ChatMessage, SamplingWishes, Tool, ToolCall
from mesh.errors import AlreadyExists, Conflict, InvalidRequest, MeshError, NoRoom, NotFound, Unsuitable
from tests.e2e.asking import deploy, generate_ids, whole
from tests.e2e.conftest import Running
from tests.e2e.library import prompt_ids

MAX_POSITIONS = 2048
ONE = SamplingWishes(temperature=0.0, max_tokens=1)


def fields_of(error: MeshError) -> set[str]:
    """The fields that a BadRequest names."""
    return {violation.field for violation in error.violations}


async def test_an_unknown_model_is_not_found(shared: Running) -> None:
    with pytest.raises(NotFound) as refused:
        await whole(shared.client.generate("nobody/nothing", "Hello"))
    assert refused.value.reason == "UNKNOWN_MODEL"
    assert refused.value.metadata == {"model": "nobody/nothing"}


async def test_an_empty_prompt_is_refused(shared: Running) -> None:
    await shared.deployed("llama")
    for events in (
        shared.client.generate("llama", ""),
        shared.client.chat("llama", []),
        generate_ids(shared.address, "llama", (), ONE),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await whole(events)
        assert refused.value.reason == "EMPTY_PROMPT"
        assert fields_of(refused.value) <= {"prompt", "messages"}


async def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(shared: Running) -> None:
    await shared.deployed("llama")
    address = shared.address
    with pytest.raises(InvalidRequest, match=r"2048 tokens.*at most 2047") as refused:
        await whole(generate_ids(address, "llama", prompt_ids(MAX_POSITIONS), ONE))
    assert refused.value.reason == "PROMPT_TOO_LONG"
    assert fields_of(refused.value) == {"prompt"}
    longest = await whole(generate_ids(address, "llama", prompt_ids(MAX_POSITIONS - 1), ONE))
    assert longest.finished.completion_tokens == 1


async def test_every_bad_sampling_value_is_named_at_once(shared: Running) -> None:
    await shared.deployed("llama")
    wishes = SamplingWishes(
        temperature=2.5,
        top_p=0.0,
        min_p=math.nan,
        max_tokens=0,
        repetition_penalty=-1.0,
        presence_penalty=3.0,
        stop=("",),
    )
    with pytest.raises(InvalidRequest) as refused:
        await whole(shared.client.generate("llama", "Hello", wishes))
    assert refused.value.reason == "BAD_SAMPLING"
    assert fields_of(refused.value) == {
        "sampling.temperature",
        "sampling.top_p",
        "sampling.min_p",
        "sampling.max_tokens",
        "sampling.repetition_penalty",
        "sampling.presence_penalty",
        "sampling.stop",
    }


async def test_a_token_id_outside_the_vocabulary_is_refused(shared: Running) -> None:
    await shared.deployed("llama")
    with pytest.raises(InvalidRequest) as refused:
        await whole(generate_ids(shared.address, "llama", (100, 1 << 30), ONE))
    assert refused.value.reason == "UNKNOWN_TOKEN"
    assert fields_of(refused.value) == {"token_ids"}


async def test_a_role_that_the_chat_template_does_not_know_is_refused(shared: Running) -> None:
    await shared.deployed("llama")
    with pytest.raises(InvalidRequest) as refused:
        await whole(shared.client.chat("llama", [ChatMessage("oracle", "Hello")]))
    assert fields_of(refused.value) == {"messages"}


async def test_every_wrong_field_of_a_conversation_is_named_at_once(shared: Running) -> None:
    await shared.deployed("llama")
    turns = [ChatMessage("", "Hello"), ChatMessage("assistant", "", tool_calls=(ToolCall("1", "tide", "high"),))]
    with pytest.raises(InvalidRequest) as refused:
        await whole(shared.client.chat("llama", turns, tools=[Tool("")], template_arguments="[]"))
    assert refused.value.reason == "BAD_CONVERSATION"
    assert fields_of(refused.value) == {
        "messages[0].role",
        "messages[1].tool_calls[0].arguments",
        "tools[0].name",
        "template_arguments",
    }


async def test_tools_that_the_chat_template_would_leave_out_are_refused(shared: Running) -> None:
    await shared.deployed("llama")
    with pytest.raises(Unsuitable) as refused:
        await whole(shared.client.chat("llama", [ChatMessage("user", "Hello")], tools=[Tool("tide")]))
    assert refused.value.reason == "NO_TOOLS_IN_TEMPLATE"


async def test_a_message_over_the_size_limit_is_refused_and_the_gateway_lives_on(shared: Running) -> None:
    await shared.deployed("llama")
    with pytest.raises(NoRoom, match="larger than max"):
        await whole(shared.client.generate("llama", "x" * (17 << 20)))
    assert (await whole(shared.client.generate("llama", "x", ONE))).finished.completion_tokens == 1


async def test_a_name_is_deployed_once(shared: Running) -> None:
    model = await shared.deployed("llama", "only")
    with pytest.raises(AlreadyExists) as refused:
        await deploy(shared.client, "only", checkpoint=model.checkpoint.digest)
    assert refused.value.reason == "MODEL_EXISTS"
    assert await shared.client.get("only") == model


async def test_a_write_with_an_old_etag_is_aborted(shared: Running) -> None:
    model = await shared.deployed("llama", "contended")
    changed = await shared.client.update("contended", keep_alive_s=9.0, etag=model.etag)
    with pytest.raises(Conflict) as refused:
        await shared.client.update("contended", keep_alive_s=1.0, etag=model.etag)
    assert refused.value.reason == "ETAG_MISMATCH"
    with pytest.raises(Conflict):
        await shared.client.delete("contended", etag=model.etag)
    assert await shared.client.get("contended") == changed
    await shared.client.delete("contended", etag=changed.etag)
    with pytest.raises(NotFound):
        await shared.client.get("contended")


@pytest.mark.parametrize(
    ("name", "checkpoint", "source", "field"),
    [
        ("", "0" * 64, "", "name"),
        ("a b", "0" * 64, "", "name"),
        ("both", "0" * 64, "/models", "spec"),
        ("neither", "", "", "spec"),
    ],
)
async def test_a_deployment_that_says_too_little_or_too_much_is_refused(
    shared: Running, name: str, checkpoint: str, source: str, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await deploy(shared.client, name, checkpoint=checkpoint, source=source)
    assert fields_of(refused.value) == {field}


async def test_a_checkpoint_that_no_store_holds_is_not_found(shared: Running) -> None:
    with pytest.raises(NotFound) as refused:
        await deploy(shared.client, "ghost", checkpoint="0" * 64)
    assert refused.value.reason == "UNKNOWN_CHECKPOINT"
    async with aclosing(shared.client.watch(["ghost"])) as changes:
        assert (await anext(changes)).model is None  # the bookmark: there is nothing before it
