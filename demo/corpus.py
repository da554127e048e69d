"""Reads `demo/text` into entries (questions with one answer) and passages. It draws and rewords nothing."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT = Path(__file__).parent / "text"

SINGULAR = (
    "What is {0}?",
    "What's {0}?",
    "What exactly is {0}?",
    "Tell me about {0}.",
    "Tell me what {0} is.",
    "Explain {0}.",
    "Explain what {0} is.",
    "Can you explain {0}?",
    "Describe {0}.",
    "What do you know about {0}?",
    "I want to know what {0} is.",
    "Do you know what {0} is?",
    "Define {0}.",
    "{0}?",
)
PLURAL = (
    "What are {0}?",
    "What exactly are {0}?",
    "Tell me about {0}.",
    "Tell me what {0} are.",
    "Explain {0}.",
    "Explain what {0} are.",
    "Can you explain {0}?",
    "Describe {0}.",
    "What do you know about {0}?",
    "I want to know what {0} are.",
    "Do you know what {0} are?",
    "{0}?",
)
WORDINGS_OF_MARK = {"=": SINGULAR, "+": PLURAL, "?": ("{0}",), "~": ("{0}",)}


class CorpusBroken(ValueError):
    """A corpus file does not follow the format in `demo/text/README.md`; the message names the place."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer and the questions that lead to it. Training never sees the `held_out` wordings; they measure it."""

    topic: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str


def read_entries(directory: Path = TEXT / "questions") -> list[Entry]:
    """All entries, in a fixed order. Raises CorpusBroken for an entry without a wording or an answer."""
    return [_entry(path.stem, block) for path in sorted(directory.glob("*.txt")) for block in _blocks(path)]


def read_passages(directory: Path = TEXT / "passages") -> list[str]:
    """All passages, in a fixed order; a blank line stands between two paragraphs of one passage."""
    return [flow(block) for path in sorted(directory.glob("*.txt")) for block in _blocks(path)]


def expand(pattern: str) -> list[str]:
    """Every reading of a pattern: `a [b|c] d` gives `a b d` and `a c d`."""
    parts = re.split(r"\[([^\]]*)\]", pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def flow(lines: list[str]) -> str:
    """Joins wrapped lines. `//` alone starts a paragraph; ` /` at a line's end keeps the line break."""
    joined = " ".join(line.strip() for line in lines)
    return joined.replace(" // ", "\n\n").replace(" / ", "\n")


def sentence_starts(text: str) -> list[int]:
    """Offsets in `text` where a sentence or a paragraph begins, 0 first."""
    return [0, *(match.end() for match in re.finditer(r'[.!?]"?\s+(?=["A-Z])', text))]


def _entry(topic: str, lines: list[str]) -> Entry:
    wordings: list[str] = []
    held_out: list[str] = []
    answer = list(lines)
    while answer and answer[0][:1] in WORDINGS_OF_MARK and answer[0][1:2] == " ":
        line = answer.pop(0)
        into = held_out if line[0] == "~" else wordings
        into.extend(_capital(form.format(text)) for text in expand(line[2:]) for form in WORDINGS_OF_MARK[line[0]])
    if not answer or not wordings:
        raise CorpusBroken(f"{topic}: the entry {lines[0]!r} needs a question line and an answer below it")
    return Entry(topic, tuple(dict.fromkeys(wordings)), tuple(held_out), flow(answer))


def _blocks(path: Path) -> Iterator[list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for filled, group in itertools.groupby(lines, key=lambda line: bool(line.strip())):
        if filled:
            yield list(group)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
