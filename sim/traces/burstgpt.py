"""BurstGPT: Timestamp in seconds, Model (ChatGPT or GPT-4), Request tokens, Response tokens, Log Type, and in later
files Session ID. Requests that failed, whose answers have no tokens, are left out."""

from collections.abc import Iterator
from pathlib import Path

from sim.traces.row import Row, Window
from sim.traces.table import lines

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One a request, by model and kind of use, so that there are four keys; the trace begins with the first."""
    begin_s: float | None = None
    for line in lines(path, COLUMNS):
        begin_s = line.number_of("Timestamp") if begin_s is None else begin_s
        at_s, answer = line.number_of("Timestamp") - begin_s, line.count("Response tokens")
        if window.holds(at_s) and answer:
            yield Row(
                at_s,
                f"{line.text('Model')}/{line.text('Log Type')}",
                prompt_tokens=line.count("Request tokens"),
                answer_tokens=answer,
                session=line.fields.get("Session ID", ""),
            )
