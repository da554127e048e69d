"""A bar for whatever a person waits for: a model's start, an import. On a pipe it is a line a phase."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from cli.measures import bytes_text
from mesh.facts import Tier
from mesh.requests import ImportProgress, LoadProgress, Phase, Progress

SOURCES = {
    Tier.ORIGIN: "from where it was published",
    Tier.DISK: "from disk",
    Tier.DRAM: "from DRAM",
    Tier.DEVICE: "on the device",
}


class Bar:
    """Shows one wait at a time; `console` None shows nothing. Use as a context manager."""

    def __init__(self, console: Console | None, *, keep: bool = False, indent: str = "") -> None:
        self._console, self._indent = console, indent
        self._label = ""
        self._bar: RichProgress | None = None
        if console and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(32), TextColumn("{task.fields[amount]}"))
            self._bar = RichProgress(*columns, console=console, transient=not keep)
            self._task = self._bar.add_task("", total=None, amount="", visible=False)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the showing, so that other text can be written; it may be called twice."""
        if self._bar:
            self._bar.stop()

    def start(self, progress: Progress) -> None:
        """How far a model's start has come."""
        load = progress.load
        if progress.phase is Phase.READY:
            self._complete()
        elif progress.phase is Phase.LOADING and load:
            self._show(f"loading {SOURCES[load.tier]}", load.bytes_done, load.bytes_total)
        elif progress.phase is Phase.QUEUED and progress.position:
            self._show(f"queued, {progress.position} before it", 0, 0)
        else:
            self._show(progress.phase, 0, 0)

    def importing(self, progress: ImportProgress) -> None:
        """How far an import has come."""
        self._show(progress.phase, progress.bytes_done, progress.bytes_total)

    def prefetching(self, store_id: str, tier: Tier, progress: LoadProgress) -> None:
        """How far a prefetch to a store's tier has come."""
        source = "" if progress.tier is tier else f" {SOURCES[progress.tier]}"
        self._show(f"to {tier} of {store_id}{source}", progress.bytes_done, progress.bytes_total)

    def _show(self, label: str, done: int, total: int) -> None:
        if self._bar:
            amount = f"{bytes_text(done)} of {bytes_text(total)}" if total else ""
            text = self._indent + label
            self._bar.update(
                self._task, description=text, completed=done, total=total or None, amount=amount, visible=True
            )
        elif self._console and label != self._label:
            self._console.print(f"{self._indent}{label} ...", style="dim", soft_wrap=True)
        self._label = label

    def _complete(self) -> None:
        """A load that is shown is full now; a wait without an amount is over."""
        if not self._bar:
            return
        total = self._bar.tasks[0].total
        self._bar.update(self._task, completed=total or 0, visible=total is not None)
