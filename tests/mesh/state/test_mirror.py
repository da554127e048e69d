"""The mirror: a snapshot and the events since are what Redis holds, through everything that happens to Redis."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import AlreadyExists, Conflict, NotFound
from mesh.facts import ClusterFacts, Member, ModelEntry, WorkerFacts
from mesh.state.catalogue import ENTRY, Catalogue
from mesh.state.connection import COMMAND_TIMEOUT_S, State
from mesh.state.drains import Drains, worker_drain
from mesh.state.keys import EVENTS_KEPT
from mesh.state.leases import MEMBER, Membership
from mesh.state.mirror import Mirror, fold
from tests.mesh.state.conftest import WAIT_S, Breakable, member
from tests.mesh.state.test_catalogue import entry

Event = Mapping[str, str]
NAMES = ("x", "y", "z")
FILL = """
for n = 1, tonumber(ARGV[2]) do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'kind', 'left', 'id', 'worker/nobody', 'fence', 1)
end
"""
STREAM_NODE = 200  # '~' trims whole nodes of the stream, so a few more than the most may stay


async def shows(mirror: Mirror, wanted: ClusterFacts) -> bool:
    """Whether the mirror comes to show these facts."""
    return await mirror.until(lambda facts: facts == wanted, WAIT_S)


class History:
    """Writes events as the scripts would, so that a property can be asked of any history."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._fence = 0
        self._held: dict[str, int] = {}
        self._revisions = dict.fromkeys(NAMES, 0)
        self._models: set[str] = set()
        self._leader = ("", 0)

    def step(self, what: str, name: str, number: int) -> None:
        """One thing that happens, if it can."""
        getattr(self, what)(name, number)

    def join(self, name: str, number: int) -> None:
        """Also over a lease that another process holds."""
        self._held[name] = self._next()
        self._write("joined", f"worker/{name}", self._held[name], _body(name, number))

    def facts(self, name: str, number: int) -> None:
        """Publishes."""
        if name in self._held:
            self._write("facts", f"worker/{name}", self._held[name], _body(name, number))

    def leave(self, name: str, number: int) -> None:
        """By itself, or swept."""
        if name in self._held:
            self._write("left" if number % 2 else "lost", f"worker/{name}", self._held.pop(name))

    def put(self, name: str, number: int) -> None:
        """Adds or replaces a model."""
        self._revisions[name] += 1
        self._models.add(name)
        body = ENTRY.dump_json(entry(name, keep_alive_s=float(number))).decode()
        self._write("model", name, self._revisions[name], body)

    def delete(self, name: str, number: int) -> None:
        """Removes a model."""
        if name in self._models:
            self._models.remove(name)
            self._revisions[name] += 1
            self._write("deleted", name, self._revisions[name])

    def lead(self, name: str, number: int) -> None:
        """Is elected."""
        self._leader = (name, self._next())
        self._write("leader", *self._leader, f"{name}:1")

    def resign(self, name: str, number: int) -> None:
        """Gives the leadership back."""
        if self._leader[0]:
            self._write("resigned", *self._leader)
            self._leader = ("", 0)

    def drain(self, name: str, number: int) -> None:
        """A worker is to become empty, or no longer."""
        self._write("drain" if number % 2 else "undrain", f"worker/{name}", 0)

    def _next(self) -> int:
        self._fence += 1
        return self._fence

    def _write(self, kind: str, name: str, fence: int, body: str | None = None) -> None:
        event = {"kind": kind, "id": name, "fence": str(fence)}
        self.events.append(event if body is None else event | {"body": body})


STEPS = ("join", "facts", "leave", "put", "delete", "lead", "resign", "drain")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Any order of events that can be."""
    history = History()
    steps = st.tuples(st.sampled_from(STEPS), st.sampled_from(NAMES), st.integers(0, 9))
    for what, name, number in draw(st.lists(steps, max_size=30)):
        history.step(what, name, number)
    return history.events


def folded(facts: ClusterFacts, events: list[Event]) -> ClusterFacts:
    """All of them, in their order."""
    for event in events:
        facts = fold(facts, event)
    return facts


@settings(deadline=None)
@given(histories(), st.data())
def test_events_that_the_snapshot_has_already_lead_to_the_same_facts(events: list[Event], data: st.DataObject) -> None:
    taken = data.draw(st.integers(0, len(events)), label="snapshot after")
    read_from = data.draw(st.integers(0, taken), label="events from")
    assert folded(folded(ClusterFacts(), events[:taken]), events[read_from:]) == folded(ClusterFacts(), events)


@settings(deadline=None)
@given(histories())
def test_an_event_that_is_read_twice_changes_nothing(events: list[Event]) -> None:
    facts = ClusterFacts()
    for event in events:
        facts = fold(facts, event)
        assert fold(facts, event) == facts


@settings(deadline=None)
@given(histories())
def test_what_a_superseded_process_said_last_changes_nothing_when_it_comes_late(events: list[Event]) -> None:
    facts = folded(ClusterFacts(), events)
    for event in events:
        known = facts.members.get(event["id"])
        by_a_process = event["kind"] not in ("drain", "undrain")  # these are no process's, and have no fence
        if known and by_a_process and int(event["fence"]) < known.fence:
            assert fold(facts, event) == facts


@settings(deadline=None)
@given(histories())
def test_what_a_former_leader_did_changes_nothing_when_it_is_read_late(events: list[Event]) -> None:
    facts = folded(ClusterFacts(), events)
    for event in events:
        if event["kind"] in ("leader", "resigned") and facts.leader and int(event["fence"]) < facts.leader.fence:
            assert fold(facts, event) == facts


@settings(deadline=None)
@given(histories())
def test_facts_once_read_are_never_changed_in_place(events: list[Event]) -> None:
    before = folded(ClusterFacts(), events[: len(events) // 2])
    copy = ClusterFacts(dict(before.members), dict(before.models), before.leader, before.drains)
    folded(before, events[len(events) // 2 :])
    assert before == copy


@pytest.mark.parametrize("seed", range(4))
async def test_a_mirror_that_followed_knows_what_a_mirror_that_loads_now_does(
    seed: int, state: State, mirror: Mirror
) -> None:
    """Through the real scripts: 80 random things happen, some of which are refused."""
    chance, catalogue = random.Random(seed), Catalogue(state)
    lives: dict[str, AsyncExitStack] = {}
    for _ in range(80):
        with suppress(NotFound, AlreadyExists, Conflict):
            await _random_step(chance, state, catalogue, lives, chance.choice(NAMES))
    async with Mirror(state).running() as fresh:
        assert fresh.facts.models or fresh.facts.members
        assert await shows(mirror, fresh.facts)
    for life in lives.values():
        await life.aclose()


async def _random_step(
    chance: random.Random, state: State, catalogue: Catalogue, lives: dict[str, AsyncExitStack], name: str
) -> None:
    keys = state.keys
    match chance.choice(STEPS):
        case "join":
            life = lives.setdefault(f"{name}{chance.randrange(2)}", AsyncExitStack())
            membership = await life.enter_async_context(Membership(state, member(name), lease_s=60.0))
            membership.publish(replace(membership.member, worker=WorkerFacts("host", chance.randrange(100), 1, 1)))
        case "leave" if lives:
            await lives.pop(chance.choice(sorted(lives))).aclose()
        case "put":
            await catalogue.add(entry(name, keep_alive_s=chance.random()))
        case "facts":
            await catalogue.replace(replace(entry(name), revision=chance.randrange(1, 4)))
        case "delete":
            await catalogue.remove(name, chance.choice([-1, 1, 2]))
        case "lead":
            bid: list[str | int] = [name, f"{name}:1", 60_000, 0, EVENTS_KEPT]
            await state.run("lead", [keys.leader, keys.fence, keys.events], bid)
        case "resign":
            fence = str(await state.redis.hget(keys.leader, "fence"))
            await state.run("resign", [keys.leader, keys.events], [fence, EVENTS_KEPT])
        case "drain":
            await chance.choice([Drains(state).begin, Drains(state).end])(worker_drain(name))


async def test_what_was_there_before_is_there_at_once(state: State) -> None:
    stored = await Catalogue(state).add(entry())
    async with Membership(state, member(), lease_s=60.0) as membership, Mirror(state).running() as late:
        assert dict(late.facts.models) == {stored.name: stored}
        assert dict(late.facts.members) == {"worker/w1": membership.member}


async def test_watchers_wake_at_each_change_and_only_then(state: State, mirror: Mirror) -> None:
    with mirror.watching() as changed:
        assert not changed.is_set()
        await Catalogue(state).add(entry())
        async with asyncio.timeout(WAIT_S):
            await changed.wait()
        assert "curlew" in mirror.facts.models


async def test_until_answers_at_once_what_is_so_already_and_gives_up_at_its_limit(mirror: Mirror) -> None:
    assert await mirror.until(lambda facts: not facts.models, 0.0)
    assert not await mirror.until(lambda facts: bool(facts.models), 0.0)
    assert not await mirror.until(lambda facts: bool(facts.models), -1.0)


async def test_without_redis_the_last_known_facts_stay_and_are_marked_stale(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Mirror(state).running() as mirror:
        stored = await Catalogue(state).add(entry())
        assert await mirror.until(lambda f: "curlew" in f.models, WAIT_S)
        await breakable.stop()
        await _becomes(mirror, stale=True)
        assert dict(mirror.facts.models) == {"curlew": stored}
        await breakable.start()
        await _becomes(mirror, stale=False)
        assert mirror.facts == ClusterFacts()


async def test_after_a_restart_of_redis_changes_are_followed_again(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Mirror(state).running() as mirror:
        await breakable.stop()
        await breakable.start()
        await _becomes(mirror, stale=False)
        stored = await Catalogue(state).add(entry())
        assert await mirror.until(lambda f: f.models.get("curlew") == stored, WAIT_S)


async def test_a_redis_that_hangs_is_noticed_though_its_socket_stays_open(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Mirror(state).running() as mirror:
        breakable.freeze()
        await _becomes(mirror, stale=True)
        breakable.thaw()
        await _becomes(mirror, stale=False)


async def test_a_cluster_in_which_nothing_happens_is_not_taken_for_gone(mirror: Mirror) -> None:
    with mirror.watching() as changed, pytest.raises(TimeoutError):
        async with asyncio.timeout(COMMAND_TIMEOUT_S + 0.3):  # real silence: longer than any answer may take
            await changed.wait()
    assert not mirror.stale


async def _becomes(mirror: Mirror, *, stale: bool) -> None:
    async with asyncio.timeout(WAIT_S):
        with mirror.watching() as changed:
            while mirror.stale is not stale:
                changed.clear()
                await changed.wait()


async def test_a_mirror_that_fell_behind_the_capped_events_loads_everything_again(state: State, mirror: Mirror) -> None:
    """One script adds a member and so many events that the member's own is dropped before anybody can read it."""
    keys, name = state.keys, "worker/missed"
    body = MEMBER.dump_json(member("missed")).decode()
    join = """
        redis.call('HSET', KEYS[2], 'fence', 7, 'body', ARGV[3])
        redis.call('ZADD', KEYS[3], 99999999999999, ARGV[4])
        redis.call('XADD', KEYS[1], '*', 'kind', 'joined', 'id', ARGV[4], 'fence', 7, 'body', ARGV[3])
    """
    await Catalogue(state).add(entry())
    assert await mirror.until(lambda f: "curlew" in f.models, WAIT_S)
    where = [keys.events, keys.member_prefix + name, keys.leases]
    await state.redis.eval(join + FILL, 3, *where, 1000, 3000, body, name)
    assert await mirror.until(lambda f: name in f.members, WAIT_S)
    assert mirror.facts.members[name].fence == 7


async def test_an_event_that_cannot_be_read_ends_the_mirror_loudly(state: State) -> None:
    async def follow() -> None:
        async with asyncio.timeout(WAIT_S), Mirror(state).running():
            await state.redis.xadd(state.keys.events, {"kind": "model", "id": "x", "fence": "no number"})
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match="no number"):
        await follow()


async def test_what_ends_the_block_comes_out_as_it_is(state: State) -> None:
    with pytest.raises(NotFound, match="mine"):
        async with Mirror(state).running():
            raise NotFound("mine")


@pytest.mark.parametrize("write", ["join", "publish", "leave", "put", "delete", "lead", "resign", "sweep"])
async def test_every_write_keeps_the_events_capped(write: str, state: State, mirror: Mirror) -> None:
    keys, catalogue = state.keys, Catalogue(state)
    await catalogue.add(entry())
    lead = [keys.leader, keys.fence, keys.events]
    _, fence, _ = await state.run("lead", lead, ["s", "s:1", 60_000, 0, EVENTS_KEPT])
    join = [keys.leases, keys.fence, keys.member_prefix + "worker/w1", keys.events]
    held = await state.run("join", join, ["worker/w1", 0, _body("w1", 1), EVENTS_KEPT])
    await state.redis.eval(FILL, 1, keys.events, 10 * EVENTS_KEPT, EVENTS_KEPT + 1000)
    match write:
        case "join":
            await state.run("join", join, ["worker/w1", 60_000, _body("w1", 2), EVENTS_KEPT])
        case "publish":
            await state.run("renew", [join[0], *join[2:]], ["worker/w1", 60_000, held, _body("w1", 3), EVENTS_KEPT])
        case "leave":
            await state.run("leave", [join[0], *join[2:]], ["worker/w1", held, EVENTS_KEPT])
        case "put":
            await catalogue.add(entry("other"))
        case "delete":
            await catalogue.remove("curlew")
        case "lead":
            await state.run("lead", lead, ["s", "s:1", 60_000, 0, EVENTS_KEPT])
        case "resign":
            await state.run("resign", [keys.leader, keys.events], [fence, EVENTS_KEPT])
        case "sweep":
            await state.run("sweep", [keys.leases, keys.events], [keys.member_prefix, EVENTS_KEPT])
    assert await state.redis.xlen(keys.events) <= EVENTS_KEPT + STREAM_NODE


def _body(name: str, number: int) -> str:
    facts: Member = replace(member(name), worker=WorkerFacts("host", number, 1, 1))
    return MEMBER.dump_json(facts).decode()


def test_an_entry_survives_its_journey() -> None:
    stored: ModelEntry = entry("größer", keep_alive_s=0.1)
    assert ENTRY.validate_json(ENTRY.dump_json(stored)) == stored
