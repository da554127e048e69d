"""How often a request is tried: in a row and without a token from any; and when workers are held to die of it."""

import pytest

from mesh.errors import MeshError, NotFound, Unreachable
from services.gateway.retries import LONGEST_PAUSE_S, NEAR_TOKENS, Bounds, Retries

DEATH = Unreachable("worker w was lost", reason="WORKER_LOST", metadata={"worker": "w"})
ABSENCE = Unreachable("worker w is not there", reason="WORKER_UNREACHABLE", metadata={"worker": "w"})
REPLICA_GONE = NotFound("not here", reason="REPLICA_NOT_RESIDENT", metadata={"worker": "w"})


def retries(attempts: int = 3, deaths: int = 2) -> Retries:
    """Of a new request."""
    return Retries(Bounds(attempts, deaths))


def test_the_first_try_comes_at_once_and_the_next_ones_later_and_later() -> None:
    one = retries(attempts=10)
    pauses = [one.after(ABSENCE, fence, 0) for fence in range(9)]
    assert pauses[0] == 0.0
    assert 0 < pauses[1] < pauses[3] < pauses[5]
    assert max(pauses) <= LONGEST_PAUSE_S


@pytest.mark.parametrize("error", [ABSENCE, REPLICA_GONE])
def test_after_so_many_workers_without_a_token_it_fails(error: MeshError) -> None:
    one = retries()
    one.after(error, 1, 0)
    one.after(error, 2, 0)
    with pytest.raises(MeshError) as caught:
        one.after(error, 3, 0)
    assert caught.value is error


def test_a_token_from_anybody_begins_the_count_and_the_exclusions_anew() -> None:
    one = retries()
    for tokens in (0, 1, 2, 3, 4):
        one.after(ABSENCE, 10 + tokens, tokens)
        assert one.excluded == {10 + tokens}
        one.after(ABSENCE, 20 + tokens, tokens)
        assert one.excluded == {10 + tokens, 20 + tokens}


@pytest.mark.parametrize("more", [0, NEAR_TOKENS])
def test_two_workers_that_die_at_the_same_token_die_of_the_request(more: int) -> None:
    one = retries()
    one.after(DEATH, 1, 50)
    with pytest.raises(Unreachable, match="2 workers") as caught:
        one.after(DEATH, 2, 50 + more)
    assert (caught.value.reason, caught.value.retry_after_s) == ("POISONOUS", None)
    assert caught.value.metadata == {"worker": "w"}


def test_workers_that_die_further_on_die_of_something_else() -> None:
    one = retries()
    for number in range(8):
        assert one.after(DEATH, number, number * (NEAR_TOKENS + 1)) == 0.0


def test_a_worker_that_was_never_reached_did_not_die_of_the_request() -> None:
    one = retries()
    one.after(DEATH, 1, 50)
    one.after(ABSENCE, 2, 50)
    with pytest.raises(Unreachable) as caught:
        one.after(ABSENCE, 3, 50)
    assert caught.value.reason == "WORKER_UNREACHABLE"


def test_how_many_deaths_it_takes_is_a_setting() -> None:
    one = retries(attempts=5, deaths=3)
    one.after(DEATH, 1, 50)
    one.after(DEATH, 2, 50)
    with pytest.raises(Unreachable) as caught:
        one.after(DEATH, 3, 50)
    assert caught.value.reason == "POISONOUS"
