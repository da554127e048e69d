"""What the leader has learnt, written down for whoever leads next: when it has changed, every few seconds at most."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from mesh.errors import StaleFence, Unreachable
from mesh.state.learnt import Notebook, Subject

log = structlog.get_logger()
PAUSE_S = 2.0  # between two writings


@dataclass(frozen=True, slots=True)
class Topic:
    """What one part of the judgement learns. `changed` says whether there is news, `news` gives what has changed since
    it was last asked, `recall` takes what an earlier leader wrote."""

    subject: Subject
    changed: Callable[[], bool]
    news: Callable[[], Mapping[str, str]]
    recall: Callable[[Mapping[str, str]], None]


@dataclass(slots=True)
class Notes:
    """Of one leadership."""

    notebook: Notebook
    fence: int
    topics: Sequence[Topic]
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Something may have been learnt."""
        if any(topic.changed() for topic in self.topics):
            self._changed.set()

    async def recall(self) -> None:
        """Reads what is there. Without Redis one begins with guesses."""
        try:
            for topic in self.topics:
                topic.recall(await self.notebook.read(topic.subject))
        except Unreachable as error:
            log.warning("nothing is recalled of what was learnt before", error=error.message)

    async def keep(self) -> None:
        """Writes until cancelled, or until another leads."""
        unwritten: dict[Subject, dict[str, str]] = {topic.subject: {} for topic in self.topics}
        while True:
            await self._changed.wait()
            self._changed.clear()
            for topic in self.topics:
                unwritten[topic.subject].update(topic.news())
            try:
                for subject, entries in unwritten.items():
                    await self.notebook.write(self.fence, subject, entries)
                    entries.clear()
            except Unreachable:
                self._changed.set()  # so that it is tried again
            except StaleFence:
                return
            await asyncio.sleep(PAUSE_S)
