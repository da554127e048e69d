"""The quick run, whole: real processes die, and no answer shows it."""

import asyncio
import json
import sys

import pytest

SEED = 14
PATIENCE_S = 560  # also on a busy machine


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_quick_run_finds_every_answer_whole() -> None:
    line = (sys.executable, "-m", "chaos", "--quick", "--seed", str(SEED))
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()  # its processes die with it
            await process.wait()
    text = said.decode()
    found = json.loads(text.splitlines()[-1])
    assert process.returncode == 0, text
    assert found["whole"] + found["left"] == found["questions"] == 60
    assert any(trouble.startswith("kill: worker") for trouble in found["troubles"])
