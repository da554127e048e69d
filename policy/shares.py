"""Who has had how much of the devices. Start-time fair queueing (Goyal et al., SIGCOMM 1996) over tenants, in
device-seconds over weight: whoever has had least goes first, and what nobody else wanted is not held against anybody.
No clock: whoever keeps the books says when."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

EQUAL: Mapping[str, float] = MappingProxyType({})
LOADING = ""  # what is done for a tenant, beside requests to models by their names
FIRST_GUESS_S = 1.0  # device-seconds of what has not been done yet
GAIN = 0.1  # of the newest in what is expected of the next
MOST_TENANTS = 4096  # remembered without need


@dataclass(slots=True)
class Device:
    """One device's time: at each moment all that use it have equal parts. `turns_s` is what one who was always there
    has had."""

    turns_s: float = 0.0
    since_s: float = 0.0
    users: int = 0

    def use(self, change: int, now: float) -> float:
        """One more or one less uses it from now on; returns the turns so far."""
        if self.users:
            self.turns_s += (now - self.since_s) / self.users
        self.since_s = now
        self.users += change
        return self.turns_s


@dataclass(frozen=True, slots=True)
class Charge:
    """What somebody uses a device for, until it ends; `guess_s` is on the tenant's account already."""

    tenant: str
    kind: str
    worker_id: str
    begun_turns_s: float
    guess_s: float


@dataclass(slots=True)
class Shares:
    """The tenants' accounts. `clock_s` is what the last one served had had: who comes anew has had no less."""

    weights: Mapping[str, float] = field(default_factory=lambda: EQUAL)
    clock_s: float = 0.0
    had_s: dict[str, float] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    charges: dict[Hashable, Charge] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    costs_s: dict[str, float] = field(default_factory=dict)

    def tag_s(self, tenant: str) -> float:
        """What a tenant has had, over its weight."""
        return self.had_s.get(tenant, self.clock_s)

    def weight(self, tenant: str) -> float:
        """1, unless an operator has said otherwise."""
        return self.weights.get(tenant, 1.0)

    def cost_s(self, kind: str) -> float:
        """Device-seconds that a request to a model, or a load, is expected to take."""
        return self.costs_s.get(kind, FIRST_GUESS_S)

    def requests(self, tenant: str) -> int:
        """Of a tenant, waiting and running."""
        return self.waiting[tenant] + self.running[tenant]

    def came(self, tenant: str) -> None:
        """A request of a tenant waits. Time in which none did is no credit."""
        if not self.waiting[tenant]:
            self.had_s[tenant] = max(self.tag_s(tenant), self.clock_s)
            self._forget()
        self.waiting[tenant] += 1

    def went(self, tenant: str) -> None:
        """It waits no longer: it has a place, or none any more."""
        self.waiting[tenant] -= 1
        if not self.waiting[tenant]:
            del self.waiting[tenant]

    def begin(self, what: Hashable, kind: str, tenant: str, worker_id: str, now: float) -> None:
        """A request is placed, or a load begins, for a tenant: what is expected of it is charged at once."""
        self.clock_s = max(self.clock_s, self.tag_s(tenant))
        begun_turns_s = self.devices.setdefault(worker_id, Device(since_s=now)).use(+1, now)
        guess_s = self.cost_s(kind)
        self.charges[what] = Charge(tenant, kind, worker_id, begun_turns_s, guess_s)
        self._charge(tenant, guess_s)
        if kind != LOADING:
            self.running[tenant] += 1

    def end(self, what: Hashable, now: float) -> None:
        """It is over: what it has really taken replaces the guess, and counts in the next. Nothing, if it is not
        known."""
        charge = self.charges.pop(what, None)
        if charge is None:
            return
        if charge.kind != LOADING:
            self.running[charge.tenant] -= 1
            if not self.running[charge.tenant]:
                del self.running[charge.tenant]
        device = self.devices[charge.worker_id]
        took_s = device.use(-1, now) - charge.begun_turns_s
        if not device.users:
            del self.devices[charge.worker_id]
        self._charge(charge.tenant, took_s - charge.guess_s)
        known_s = self.costs_s.get(charge.kind, took_s)
        self.costs_s[charge.kind] = known_s + GAIN * (took_s - known_s)

    def _charge(self, tenant: str, device_s: float) -> None:
        self.had_s[tenant] = self.tag_s(tenant) + device_s / self.weight(tenant)

    def _forget(self) -> None:
        """Those whom the clock has passed are as if they had never come."""
        if len(self.had_s) > MOST_TENANTS:
            using = {charge.tenant for charge in self.charges.values()} | self.waiting.keys()
            kept = {t: s for t, s in self.had_s.items() if s > self.clock_s or t in using}
            self.had_s = kept
