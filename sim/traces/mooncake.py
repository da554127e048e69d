"""Mooncake (FAST'25): a JSON object a request.

It has timestamp in milliseconds, input_length, output_length and hash_ids, one for each 512 tokens of the prompt.
Timestamps are multiples of three seconds, so that most gaps are none: requests come somewhere within those three.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sim.traces.row import BadTrace, Row, Window
from sim.traces.table import open_text

STEP_S = 3.0


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One a request, of a single model."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            try:
                row = _row(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise BadTrace(f"{path}, line {number}: no request of Mooncake's: {error!r}") from error
            if window.holds(row.at_s):
                yield row


def _row(fields: dict[str, object]) -> Row:
    blocks = fields["hash_ids"]
    if not isinstance(blocks, list):
        raise TypeError("hash_ids is no list")
    return Row(
        at_s=float(str(fields["timestamp"])) / 1000.0,
        span_s=STEP_S,
        prompt_tokens=int(str(fields["input_length"])),
        answer_tokens=int(str(fields["output_length"])),
        blocks=tuple(int(block) for block in blocks),
    )
