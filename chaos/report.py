"""What came of it: a table for people, and one JSON object."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2

from chaos.heard import Heard
from chaos.questions import Sort
from chaos.storm import Damage
from chaos.verdict import Found, Verdict

SHOWN, LONGEST = 20, 3  # faults, and pauses, that are told one by one
KINDS = {
    inference_pb2.MOVE_KIND_KV: "kv",
    inference_pb2.MOVE_KIND_TOKENS: "tokens",
    inference_pb2.MOVE_KIND_REBUILT: "rebuilt",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run."""

    seed: int
    took_s: float
    heard: Sequence[Heard]
    verdicts: Sequence[Verdict]  # of each heard
    damage: Damage
    leftovers: Sequence[str]
    witnessed: int  # greedy answers that transformers was asked for too
    disagreements: Sequence[str]

    @property
    def good(self) -> bool:
        """Whether nothing was lost, duplicated or wrong, and nothing left behind."""
        return all(verdict.good for verdict in self.verdicts) and not (self.leftovers or self.disagreements)

    @property
    def counts(self) -> Mapping[Sort, Counter[Found]]:
        """Of each sort of question, how many answers were found to be what."""
        counts = {sort: Counter[Found]() for sort in Sort}
        for heard, verdict in zip(self.heard, self.verdicts, strict=True):
            counts[heard.question.sort][verdict.found] += 1
        return counts

    @property
    def moves(self) -> Counter[str]:
        """Of all answers: kind, reason, and whether exact."""
        finished = [heard.finished for heard in self.heard if heard.finished]
        return Counter(
            f"{_way(move)}, {'exact' if move.exact else 'not exact'}" for one in finished for move in one.moves
        )

    @property
    def gaps(self) -> list[tuple[float, str]]:
        """The clients' pauses at moves in seconds, the shortest first, and whose and at what each was."""
        return sorted(
            (move.gap.ToMilliseconds() / 1000, f"{heard.question.request_id}, {heard.question.model}, {_way(move)}")
            for heard in self.heard
            for move in (heard.finished.moves if heard.finished else ())
        )

    def json(self) -> str:
        """All counts, as one line."""
        total = sum(self.counts.values(), Counter[Found]())
        return json.dumps(
            {
                "seed": self.seed,
                "took_s": round(self.took_s, 1),
                "questions": len(self.heard),
                "tokens": sum(heard.tokens for heard in self.heard),
                **{str(found): total[found] for found in Found},
                "leftovers": len(self.leftovers),
                "witnessed": self.witnessed,
                "disagreements": len(self.disagreements),
                "came_back": _total(heard.came_back for heard in self.heard),
                "moves": dict(self.moves),
                "troubles": {f"{deed}: {outcome}": count for (deed, outcome), count in self.damage.done.items()},
                "ended_alone": self.damage.ended_alone,
            }
        )

    def lines(self) -> Iterable[str]:
        """The table, and each fault."""
        yield f"{'':12}" + "".join(f"{found:>12}" for found in Found)
        for sort, counts in self.counts.items():
            yield f"{sort:12}" + "".join(f"{counts[found]:>12}" for found in Found)
        tokens = sum(heard.tokens for heard in self.heard)
        yield f"{len(self.heard)} questions, {tokens} tokens, {self.took_s:.0f} s, seed {self.seed}"
        yield from _counted("troubles", {f"{d} {o}": n for (d, o), n in sorted(self.damage.done.items())})
        yield from _counted("clients came back after", _total(heard.came_back for heard in self.heard))
        yield from _counted("answers went on elsewhere", self.moves)
        if gaps := self.gaps:
            longest = "; ".join(f"{gap_s:.3f} s ({what})" for gap_s, what in reversed(gaps[-LONGEST:]))
            yield f"their clients' pauses: median {gaps[len(gaps) // 2][0]:.3f} s, longest {longest}"
        yield f"transformers agrees with {self.witnessed - len(self.disagreements)} of {self.witnessed} greedy answers"
        yield from self._faults()

    def _faults(self) -> Iterable[str]:
        bad = [(h, v) for h, v in zip(self.heard, self.verdicts, strict=True) if not v.good]
        for heard, verdict in bad[:SHOWN]:
            asked = heard.question
            yield f"{verdict.found}: {asked.request_id}, {asked.sort}, {asked.model}: {verdict.why}"
        yield from (f"left behind: {text}" for text in self.leftovers)
        yield from (f"transformers disagrees: {text}" for text in self.disagreements)
        yield from (f"ended by itself: {name}" for name in self.damage.ended_alone)


def _way(move: pb.AnswerMove) -> str:
    return f"{KINDS.get(move.kind, 'unspecified')}, {move.reason}"


def _total(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sum(counters, Counter[str]()))


def _counted(title: str, counts: Mapping[str, int]) -> Iterable[str]:
    if counts:
        yield f"{title}: " + "; ".join(f"{name} {count}" for name, count in counts.items())
