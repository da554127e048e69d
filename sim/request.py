"""One request of a workload or a trace, and how it is written down: a JSON object a line."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """Times are seconds from the workload's begin."""

    at_s: float
    model: str
    prompt_tokens: int
    answer_tokens: int
    tenant: str = ""
    session: str = ""
    blocks: tuple[int, ...] = ()  # one id for each 512 tokens of the prompt; equal ids are equal prefixes
    deadline_s: float | None = None  # for the first token, from arrival
    priority: int = 0


def write(requests: Iterable[Request], path: Path) -> None:
    """All of them."""
    with path.open("w") as file:
        file.writelines(json.dumps(asdict(request)) + "\n" for request in requests)


def read(path: Path) -> Iterator[Request]:
    """What `write` wrote. ValueError names a line that is no request."""
    with path.open() as file:
        for number, line in enumerate(file, 1):
            try:
                fields = json.loads(line)
                yield Request(**{**fields, "blocks": tuple(fields.get("blocks", ()))})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}, is no request: {error}") from error
