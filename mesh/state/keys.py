"""Every Redis key of a cluster, and who writes it. The hash tag keeps a cluster's keys on one Redis Cluster slot.

key                       type     written by                         holds
leases                    zset     each member (its own entry)        "kind/id" -> end of lease, ms, server time
fence                     counter  every join and every election      the newest fencing token; at least ms since 1970
member:<kind>/<id>        hash     that member                        fence, body (Member, JSON)
leader                    hash     the scheduler that leads           holder, address, fence, until (ms)
models                    hash     gateways, compare-and-set          name -> ModelEntry, JSON
revisions                 hash     gateways, compare-and-set          name -> revision
drains                    set      gateways                           "worker/<id>", "node/<name>" that are to be empty
reservations              hash     the scheduler that leads           "fence/number" -> Reservation, JSON
learnt                    hash     the scheduler that leads           "rates/..." and "demand/..." -> JSON
deployments               stream   gateways, with what they wrote     ModelEntry, JSON; capped
events                    stream   every script that changes a fact   kind, id, fence, body; capped
"""

from dataclasses import dataclass

from mesh.facts import Kind

DEPLOYMENTS_KEPT = 1000  # about; only those who prepare for them read it, and they may miss some
EVENTS_KEPT = 10_000  # about; a reader that falls further behind reloads everything


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster."""

    cluster: str

    def _key(self, name: str) -> str:
        return f"whimbrel:{{{self.cluster}}}:{name}"

    @property
    def leases(self) -> str:
        """Who is alive, and until when."""
        return self._key("leases")

    @property
    def fence(self) -> str:
        """The counter of fencing tokens."""
        return self._key("fence")

    @property
    def leader(self) -> str:
        """The scheduler that decides."""
        return self._key("leader")

    @property
    def models(self) -> str:
        """The catalogue."""
        return self._key("models")

    @property
    def revisions(self) -> str:
        """Revisions of the catalogue's entries."""
        return self._key("revisions")

    @property
    def drains(self) -> str:
        """What is to become empty."""
        return self._key("drains")

    @property
    def reservations(self) -> str:
        """Loads under way."""
        return self._key("reservations")

    @property
    def learnt(self) -> str:
        """What the leader has learnt."""
        return self._key("learnt")

    @property
    def deployments(self) -> str:
        """What was added to the catalogue or changed in it, in order."""
        return self._key("deployments")

    @property
    def events(self) -> str:
        """What changed, in order."""
        return self._key("events")

    @property
    def member_prefix(self) -> str:
        """member() without the name, for scripts that handle many."""
        return self._key("member:")

    def member(self, kind: Kind, member_id: str) -> str:
        """One member's facts."""
        return f"{self.member_prefix}{kind}/{member_id}"
