"""A tier of a node: what it holds of each checkpoint. Room is made as a store makes it, by the policy's own rule."""

from collections.abc import Mapping
from types import MappingProxyType

from policy.eviction import Held, make_room


class Pool:
    """Bytes by model. What is pinned, or coming, is never dropped."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._here: dict[str, int] = {}
        self._coming: dict[str, int] = {}  # beyond what is here
        self._used_s: dict[str, float] = {}
        self._pins: dict[str, int] = {}
        self._shown: Mapping[str, int] | None = None

    @property
    def held(self) -> Mapping[str, int]:
        """What is here, by model. The same object for as long as nothing changes."""
        if self._shown is None:
            self._shown = MappingProxyType(dict(self._here))
        return self._shown

    @property
    def used_bytes(self) -> int:
        """Of what is here and of what is coming."""
        return sum(self._here.values()) + sum(self._coming.values())

    def put(self, model: str, size_bytes: int) -> bool:
        """Lays all of a checkpoint here from the beginning. False if there is no room beside the others."""
        if self.used_bytes + size_bytes > self._capacity_bytes:
            return False
        self._here[model], self._used_s[model], self._shown = size_bytes, 0.0, None
        return True

    def pin(self, model: str, now: float) -> None:
        """Somebody reads it."""
        self._pins[model] = self._pins.get(model, 0) + 1
        self._used_s[model] = now

    def unpin(self, model: str) -> None:
        """One reader less; after the last one, what has not come is given up."""
        self._pins[model] -= 1
        if not self._pins[model]:
            del self._pins[model]
            self._coming.pop(model, None)

    def book(self, model: str, size_bytes: int) -> bool:
        """Makes room for all of a pinned checkpoint. False, and nothing is dropped, if there is too little."""
        missing = size_bytes - self._here.get(model, 0) - self._coming.get(model, 0)
        free = self._capacity_bytes - self.used_bytes
        if missing > free and not self._make_room(free, missing):
            return False
        self._coming[model] = self._coming.get(model, 0) + missing
        return True

    def came(self, model: str, left_bytes: int = 0) -> None:
        """What was booked is here, but for the last `left_bytes`, which are given up."""
        if (came := self._coming.pop(model, 0) - left_bytes) > 0:
            self._here[model] = self._here.get(model, 0) + came
            self._shown = None

    def drop(self, model: str) -> None:
        """It leaves, unless somebody reads it."""
        if model in self._here and model not in self._pins:
            del self._here[model]
            self._shown = None

    def clear(self) -> None:
        """All is lost; nobody reads."""
        self._here.clear()
        self._coming.clear()
        self._shown = None

    def _make_room(self, free_bytes: int, missing_bytes: int) -> bool:
        held = [Held(one, size, self._used_s[one], one in self._pins) for one, size in self._here.items()]
        eviction = make_room(held, free_bytes, missing_bytes)
        if eviction.missing_bytes:
            return False
        self._shown = None
        for shed in eviction.shed:
            self._here[shed.digest] -= shed.bytes
            if not self._here[shed.digest]:
                del self._here[shed.digest]
        return True
