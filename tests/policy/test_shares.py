"""Tenants' accounts: what is charged, to whom, and what idleness is worth."""

import pytest

from policy.shares import FIRST_GUESS_S, LOADING, MOST_TENANTS, Shares


def used(shares: Shares, what: str, tenant: str, begun_s: float, ended_s: float) -> None:
    """A request that had a device from one moment to another, nobody else on it meanwhile."""
    shares.came(tenant)
    shares.went(tenant)
    shares.begin(what, "m", tenant, "w1", begun_s)
    shares.end(what, ended_s)


def test_what_a_request_takes_replaces_what_was_guessed() -> None:
    shares = Shares()
    shares.came("a")
    shares.begin("r", "m", "a", "w1", now=10.0)
    assert shares.tag_s("a") == FIRST_GUESS_S
    shares.end("r", 15.0)
    assert shares.tag_s("a") == pytest.approx(5.0)


def test_those_who_share_a_device_share_its_time() -> None:
    shares = Shares()
    shares.begin("a1", "m", "a", "w1", now=0.0)
    shares.begin("b1", "m", "b", "w1", now=4.0)  # alone for 4 s, then two of them for 6 s
    shares.begin("elsewhere", "m", "c", "w2", now=0.0)
    for what, ended_s in (("a1", 10.0), ("b1", 12.0), ("elsewhere", 12.0)):
        shares.end(what, ended_s)
    assert shares.tag_s("a") == pytest.approx(4.0 + 3.0)
    assert shares.tag_s("b") == pytest.approx(3.0 + 2.0)
    assert shares.tag_s("c") == pytest.approx(12.0)


def test_a_device_that_nobody_used_charges_nobody_for_the_pause() -> None:
    shares = Shares()
    used(shares, "r1", "a", 0.0, 1.0)
    used(shares, "r2", "a", 100.0, 101.0)
    assert shares.tag_s("a") == pytest.approx(2.0)
    assert not shares.devices
    assert not shares.charges


def test_a_load_is_charged_to_whom_it_is_for_with_what_loads_have_taken() -> None:
    shares = Shares()
    for n in range(2):
        shares.begin(("load", n), LOADING, "a", "w1", now=10.0 * n)
        assert shares.tag_s("a") == pytest.approx((FIRST_GUESS_S, 3.0 + 3.0)[n])
        shares.end(("load", n), 10.0 * n + 3.0)
    assert shares.tag_s("a") == pytest.approx(6.0)


def test_twice_the_weight_is_charged_half() -> None:
    shares = Shares({"a": 2.0})
    used(shares, "r1", "a", 0.0, 6.0)
    used(shares, "r2", "b", 10.0, 16.0)
    assert shares.tag_s("a") == pytest.approx(3.0)
    assert shares.tag_s("b") == pytest.approx(6.0)


def test_time_in_which_a_tenant_wanted_nothing_is_no_credit() -> None:
    shares = Shares()
    for n in range(10):
        used(shares, f"r{n}", "busy", 10.0 * n, 10.0 * n + 10.0)
    shares.came("new")
    assert shares.tag_s("new") == pytest.approx(90.0)  # what the busy one had had when it was last served


def test_who_waits_keeps_the_credit_that_waiting_earns() -> None:
    shares = Shares()
    shares.came("waits")
    used(shares, "r1", "busy", 0.0, 50.0)
    used(shares, "r2", "busy", 50.0, 60.0)
    shares.came("waits")
    assert shares.tag_s("waits") == 0.0


def test_what_was_had_is_remembered_through_a_pause() -> None:
    shares = Shares()
    used(shares, "r1", "a", 0.0, 50.0)
    shares.came("b")
    shares.came("a")
    assert shares.tag_s("a") - shares.tag_s("b") == pytest.approx(50.0)


def test_costs_are_learnt_by_model() -> None:
    shares = Shares()
    assert shares.cost_s("m") == FIRST_GUESS_S
    used(shares, "r1", "a", 0.0, 5.0)
    assert shares.cost_s("m") == pytest.approx(5.0)
    used(shares, "r2", "b", 10.0, 25.0)
    assert shares.cost_s("m") == pytest.approx(6.0)
    assert shares.cost_s("n") == FIRST_GUESS_S


def test_tenants_that_the_clock_has_passed_are_forgotten_and_nothing_changes() -> None:
    shares = Shares()
    shares.came("waits")
    for n in range(MOST_TENANTS + 1):
        used(shares, f"r{n}", f"t{n}", 1.0 * n, 1.0 * n)
        shares.clock_s += 1.0
    tags_s = shares.tag_s("t0"), shares.tag_s("waits")
    shares.came("one more")
    assert len(shares.had_s) < MOST_TENANTS
    assert (shares.tag_s("t0"), shares.tag_s("waits")) == tags_s
