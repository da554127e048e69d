"""Which ends of requests have the scheduler look again at once."""

from mesh.clock import HandClock
from mesh.facts import Member, ReplicaFacts
from mesh.requests import Wish
from policy.books import Books
from services.scheduler.waiting import WaitingRoom
from tests.policy.scene import at, cluster, model, replica, worker

HERE = at("w1")


def opened(replica_of_m: ReplicaFacts) -> tuple[WaitingRoom, Member]:
    """A room whose books know of that replica, and its worker."""
    books, room, member = Books(), WaitingRoom(HandClock()), worker("w1", replica_of_m, slots=4)
    books.observe(cluster([member], [model("m"), model("n")]))
    books.view(0.0)
    room.open(books)
    return room, member


def ended(room: WaitingRoom, member: Member) -> bool:
    """Whether the end of a request that had a place there stirs."""
    with room.ticket(Wish("r", "m")) as ticket:
        room.place(ticket.waiting.request_id, HERE, member)
    return ticket.stirs


def test_the_end_of_a_replicas_last_request_stirs() -> None:
    assert ended(*opened(replica("m")))


def test_one_of_which_the_worker_has_yet_to_tell_does_not_for_its_word_will() -> None:
    assert not ended(*opened(replica("m", running=1)))


def test_one_beside_others_does_not() -> None:
    room, member = opened(replica("m"))
    with room.ticket(Wish("other", "m")) as other:
        room.place(other.waiting.request_id, HERE, member)
        assert not ended(room, member)


def test_any_does_where_somebody_waits_though_for_another_model() -> None:
    room, member = opened(replica("m", running=1))
    with room.ticket(Wish("waits", "n")):
        assert ended(room, member)


def test_one_that_leaves_without_a_place_does() -> None:
    room, _ = opened(replica("m", running=1))
    with room.ticket(Wish("r", "m")) as ticket:
        pass
    assert ticket.stirs
