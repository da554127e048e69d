"""Showing an answer as it streams in: the start's progress, the text, and a line of what it took."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from rich.console import Console

from cli.bar import Bar
from cli.measures import speed_text, time_text
from cli.terminal import Terminal
from mesh.clients.gateway_records import AnswerEvent, Delta, Finished
from mesh.errors import Broken
from mesh.moves import AnswerMove
from mesh.requests import Progress


async def show_answer(
    terminal: Terminal, events: AsyncGenerator[AnswerEvent], *, progress: Console | None, keep_progress: bool = False
) -> Finished:
    """Writes the answer's text to stdout as it comes and the start's progress to `progress`.

    Cancelled or failed, the RPC behind `events` is cancelled. Returns what the gateway said at the end.
    """
    wrote = False
    try:
        async with aclosing(events):
            with Bar(progress, keep=keep_progress) as bar:
                async for event in events:
                    match event:
                        case Progress() if not wrote:  # later ones tell of another worker, in the midst of a line
                            bar.start(event)
                        case Delta(text) if text:
                            bar.stop()
                            terminal.write(text)
                            wrote = True
                        case Finished():
                            return event
    finally:
        if wrote:
            terminal.write("\n")
    raise Broken("the gateway ended the answer without saying how it went")


def summary(finished: Finished) -> str:
    """A line: start kind, queue, load, time to first token, speed. Then one for each worker that it went on at."""
    parts = [
        f"{finished.start_kind} start",
        f"queue {time_text(finished.times.queue_s)}",
        f"load {time_text(finished.times.load_s)}",
        f"first token {time_text(finished.time_to_first_token_s)}",
        f"{finished.completion_tokens} tokens",
        speed_text(finished.tokens_per_s),
        f"{finished.reason} on {finished.worker_id}",
    ]
    return "\n".join([" · ".join(parts), *map(_move_text, finished.moves)])


def _move_text(move: AnswerMove) -> str:
    answer = f"answer {move.index + 1}" if move.index else "answer"
    exact = ", exact" if move.exact else ""
    way = f"{move.from_worker_id} → {move.to_worker_id} ({move.reason}, {move.kind}{exact})"
    return f"{answer} moved {way} · after {move.tokens} tokens · gap {time_text(move.gap_s)}"
