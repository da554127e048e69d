"""The order of service: bands, tenants' rounds, deadlines, arrival."""

from mesh.facts import Priority
from policy.knobs import Knobs
from policy.order import Order, band
from policy.shares import Shares
from policy.view import Waiting

KNOBS = Knobs(ageing_s=30.0, quantum_s=4.0)
LOW, NORMAL, HIGH = Priority


def asked(
    name: str, since_s: float = 0.0, *, tenant: str = "", priority: Priority = NORMAL, deadline_s: float | None = None
) -> Waiting:
    """A request for the model "m"."""
    return Waiting(name, "m", since_s, tenant=tenant, priority=priority, deadline_s=deadline_s)


def rank(request: Waiting) -> tuple[float, int]:
    """By arrival, then by name."""
    return request.since_s, int.from_bytes(request.request_id.encode())


def served(shares: Shares, *waiting: Waiting, now: float = 10.0) -> list[Waiting]:
    """All of them, one after the other, each taking a device-second."""
    order, done = Order(shares, rank, now, KNOBS), list[Waiting]()
    order.add(waiting)
    while flow := order.next():
        request = flow.requests.popleft()
        order.served(request.tenant, request.model)
        done.append(request)
        if flow.requests:
            order.put(flow)
    return done


def names(*waiting: Waiting, now: float = 10.0, **had_s: float) -> list[str]:
    """The order of their service, when the tenants have had so much."""
    return [request.request_id for request in served(Shares(had_s=dict(had_s)), *waiting, now=now)]


def test_alike_requests_are_served_as_they_came() -> None:
    assert names(asked("a"), asked("b", 1.0), asked("c", 2.0)) == ["a", "b", "c"]


def test_a_higher_band_goes_first() -> None:
    assert names(asked("low", priority=LOW), asked("normal", 1.0), asked("high", 2.0, priority=HIGH)) == [
        "high",
        "normal",
        "low",
    ]


def test_within_a_band_the_earliest_deadline_goes_first_and_none_is_the_latest() -> None:
    none, late, soon = asked("none"), asked("late", 1.0, deadline_s=50.0), asked("soon", 2.0, deadline_s=20.0)
    assert names(none, late, soon) == ["soon", "late", "none"]
    assert names(asked("soon", deadline_s=20.0), asked("high", 1.0, priority=HIGH)) == ["high", "soon"]


def test_who_has_waited_long_enough_is_of_a_higher_band() -> None:
    old, new = asked("old", 0.0, priority=LOW), asked("new", 29.0)
    assert names(old, new, now=29.9) == ["new", "old"]
    assert names(old, new, now=30.0) == ["old", "new"]
    assert [band(old, now, KNOBS) for now in (0.0, 30.0, 60.0, 90.0)] == [0, 1, 2, 3]


def test_those_of_a_higher_band_who_come_much_later_wait_for_it() -> None:
    old = asked("old", 0.0, priority=LOW)
    stream = [asked(f"h{n}", float(n), priority=HIGH) for n in range(31, 91)]
    assert names(old, *stream, now=90.0)[0] == "old"


def test_who_has_had_less_goes_first() -> None:
    assert names(asked("a", tenant="a"), asked("b", 1.0, tenant="b"), a=40.0, b=0.0) == ["b", "a"]


def test_within_a_round_deadlines_count_across_tenants() -> None:
    late, soon = asked("late", tenant="a", deadline_s=50.0), asked("soon", 1.0, tenant="b", deadline_s=20.0)
    assert names(late, soon, a=0.0, b=3.9) == ["soon", "late"]
    assert names(late, soon, a=0.0, b=4.1) == ["late", "soon"]


def test_backlogs_are_served_in_turns_of_a_quantum() -> None:
    ours = [asked(f"a{n}", tenant="a") for n in range(8)]
    theirs = [asked(f"b{n}", 1.0, tenant="b") for n in range(8)]
    turns = names(*ours, *theirs)
    assert turns[:4] == ["a0", "a1", "a2", "a3"]
    assert turns[4:8] == ["b0", "b1", "b2", "b3"]


def test_turns_are_as_long_as_weights_say() -> None:
    waiting = [asked(f"{tenant}{n}", tenant=tenant) for tenant in "ab" for n in range(40)]
    first = [request.tenant for request in served(Shares({"a": 4.0}), *waiting)[:40]]
    assert (first.count("a"), first.count("b")) == (32, 8)


def test_what_a_band_takes_counts_in_the_next() -> None:
    high = [asked(f"h{n}", tenant="a", priority=HIGH) for n in range(8)]
    assert names(*high, asked("a", 1.0, tenant="a"), asked("b", 2.0, tenant="b"))[8:] == ["b", "a"]


def test_what_is_blocked_costs_its_tenant_nothing() -> None:
    blocked = [asked(f"a{n}", tenant="a") for n in range(8)]
    order = Order(Shares(), rank, 10.0, KNOBS)
    order.add(blocked)
    order.add([asked("b", 1.0, tenant="b"), asked("late a", 2.0, tenant="a")])
    looked_at = list[str]()
    while flow := order.next():
        looked_at.append(flow.requests.popleft().request_id)
        if flow.requests:
            order.put(flow)
    assert looked_at[8:] == ["b", "late a"]


def test_the_order_does_not_depend_on_the_order_in_which_it_is_asked_for() -> None:
    waiting = [
        asked(f"{tenant}{n}", float(n), tenant=tenant, priority=priority, deadline_s=deadline_s)
        for tenant in "ab"
        for n, (priority, deadline_s) in enumerate([(LOW, None), (HIGH, 70.0), (NORMAL, 20.0), (NORMAL, 60.0)])
    ]
    assert names(*waiting) == names(*reversed(waiting))
