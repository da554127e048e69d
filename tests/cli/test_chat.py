"""whimbrel chat: what is sent with each turn, what is shown, how it ends."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.errors import NoRoom
from tests.cli.conftest import RUN, Whimbrel
from tests.cli.fake_gateway import Fakes, finished

WAIT_S = 60.0


async def _echo(request: Any) -> AsyncIterator[dict[str, Any]]:
    """Says how many turns there were, in two pieces."""
    yield {"delta": pb.Delta(text="turn ", seq=0)}
    yield {"delta": pb.Delta(text=str(len(request.messages)), seq=1)}
    yield {"finished": finished()}


def _said(request: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in request.messages]


async def test_each_line_is_a_turn_and_the_whole_conversation_is_sent(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _echo
    ended = await whimbrel.run("chat", "curlew", "--system", "Be brief.", stdin="größe?\n\nand then".encode())
    assert (ended.code, ended.out, ended.err) == (0, "turn 2\nturn 4\n", "")
    first, second = fakes.gateway.requests
    assert _said(first) == [("system", "Be brief."), ("user", "größe?")]
    assert _said(second) == [*_said(first), ("assistant", "turn 2"), ("user", "and then")]


async def test_an_answer_comes_before_the_next_line_is_written(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _echo
    process = await whimbrel.start("chat", "curlew", stdin=asyncio.subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    async with asyncio.timeout(WAIT_S):
        for expected in (b"turn 1\n", b"turn 3\n"):
            process.stdin.write(b"more\n")
            assert await process.stdout.readline() == expected
        process.stdin.close()
        assert await process.wait() == 0


async def test_tools_arguments_and_sampling_are_sent(fakes: Fakes, whimbrel: Whimbrel, tmp_path: Path) -> None:
    fakes.gateway.answer = _echo
    schema = {"name": "weather", "description": "Tells it", "parameters": {"type": "object", "properties": {"a": {}}}}
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([{"type": "function", "function": schema}, {"name": "now"}]))
    options = ["--tools", str(tools), "--template-arguments", '{"x": 1}', "--seed", "7", "--max-tokens", "9"]
    assert (await whimbrel.run("chat", "curlew", *options, stdin=b"?\n")).code == 0
    (request,) = fakes.gateway.requests
    assert [(tool.name, tool.description, json.loads(tool.parameters)) for tool in request.tools] == [
        ("weather", "Tells it", schema["parameters"]),
        ("now", "", {}),
    ]
    assert (request.template_arguments, request.sampling.seed, request.sampling.max_tokens) == ('{"x": 1}', 7, 9)


async def test_a_file_that_holds_no_tools_is_said(whimbrel: Whimbrel, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('{"name": "weather"}')
    ended = await whimbrel.run("chat", "curlew", "--tools", str(tools), stdin=b"?\n")
    assert ended.code == 2
    assert "is no JSON list of functions" in " ".join(ended.err.replace("│", " ").split())


async def test_on_a_pipe_an_error_ends_it(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.chat_error = NoRoom("no worker has room", reason="NO_ROOM", retry_after_s=2.5)
    ended = await whimbrel.run("chat", "curlew", stdin=b"?\n?\n")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("NO_ROOM") == 1


async def test_ctrl_c_ends_a_chat_that_waits_for_its_person(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _echo
    process = await whimbrel.start("chat", "curlew", stdin=asyncio.subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    async with asyncio.timeout(WAIT_S):
        process.stdin.write(b"?\n")
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_at_a_terminal_an_error_leaves_the_conversation_as_it_was(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _echo
    fakes.gateway.chat_error = NoRoom("no worker has room", reason="NO_ROOM")
    ours, theirs = pty.openpty()
    line = [sys.executable, "-c", RUN, "--gateway", whimbrel.address, "chat", "curlew"]
    process = await asyncio.create_subprocess_exec(*line, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    async with asyncio.timeout(WAIT_S):
        os.write(ours, b"lost\n")
        await _shown(ours, "NO_ROOM")
        fakes.gateway.chat_error = None
        os.write(ours, b"kept\n")
        shown = await _shown(ours, "10 tokens")
        os.write(ours, b"\x04")
        assert await process.wait() == 0
    os.close(ours)
    assert "turn 1" in shown
    assert _said(fakes.gateway.requests[-1]) == [("user", "kept")]


async def _shown(terminal: int, words: str) -> str:
    """What the terminal shows, up to and with these words."""
    shown = ""
    while words not in shown:
        shown += (await asyncio.to_thread(os.read, terminal, 4096)).decode()
    return shown
