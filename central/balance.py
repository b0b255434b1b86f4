"""What became of every event, by id: from what a gateway said of it to every place it should have come to. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from models.contracts.policy import Route
from models.contracts.verdict import CENTRAL, Verdict

ASKED: tuple[Route, ...] = ("escalated", "unsure")


class Balance(Struct, frozen=True, kw_only=True):
    """Counts of ids; all that is `lost` or `doubled` should be nothing."""

    events: int  # that gateways were given
    judged: int  # by their gateways
    asked: int  # of the centre
    answered: int  # by the centre
    reviewed: int  # wait for a person
    lost: dict[str, int]  # by place, how many ids it lacks
    doubled: dict[str, int]  # by place, how many ids it has twice

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled)


class Places(Struct, frozen=True, kw_only=True):
    """What stands in each place, at the end."""

    fed: Counter[tuple[str, str]]  # gateway and text
    first: Mapping[str, Verdict]  # by id, what each gateway said first
    standing: Mapping[str, Verdict]  # by id, what stands at each gateway
    topic: Iterable[Verdict]  # all that is in Kafka, repeats too
    warehouse: Iterable[tuple[str, int]]  # id and revision of each row that stands
    waiting: Iterable[str]  # ids of what waits for a person


def balance(places: Places) -> Balance:
    """Count who lacks what.

    Kafka may have a verdict twice, for a crash repeats it; whoever reads it drops the repeat by id and revision. The
    warehouse and the queue may not.
    """
    texts = Counter((verdict.gateway or "", verdict.text) for verdict in places.first.values())
    asked = {name for name, verdict in places.first.items() if verdict.route in ASKED}
    newest: dict[str, Verdict] = {}
    in_topic = set[str]()
    for verdict in places.topic:
        in_topic.add(verdict.id)
        if verdict.id not in newest or verdict.revision > newest[verdict.id].revision:
            newest[verdict.id] = verdict
    answered = {name for name, verdict in newest.items() if verdict.revision >= CENTRAL}
    back = {name for name, verdict in places.standing.items() if verdict.revision >= CENTRAL}
    rows = Counter(name for name, _ in places.warehouse)
    waiting = Counter(places.waiting)
    reviewed = {name for name, verdict in newest.items() if verdict.route == "review"}
    stale = {name for name, revision in places.warehouse if name in newest and newest[name].revision != revision}
    lost = {
        "gateways": (places.fed - texts).total(),
        "kafka": len(places.first.keys() - in_topic),
        "answers of the centre": len(asked - answered),
        "answers at the gateways": len(answered - back),
        "warehouse": len(in_topic - rows.keys()) + len(stale),
        "queue": len(reviewed - waiting.keys()),
    }
    doubled = {
        "gateways": (texts - places.fed).total(),
        "warehouse": sum(times - 1 for times in rows.values()),
        "queue": sum(times - 1 for times in waiting.values()) + len(waiting.keys() - reviewed),
    }
    return Balance(
        events=places.fed.total(),
        judged=len(places.first),
        asked=len(asked),
        answered=len(answered),
        reviewed=len(waiting),
        lost={place: count for place, count in lost.items() if count},
        doubled={place: count for place, count in doubled.items() if count},
    )
