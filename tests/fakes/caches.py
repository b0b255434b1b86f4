"""Verdict caches that have learnt what a test says, by the release of the tiny models."""

from itertools import count

from dataflows.cache.verdict_cache import VerdictCache
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.scalars import EventId
from tests.fakes.classifier import BENIGN
from tests.fakes.tiny_models import RELEASE

SECRET = bytes(32)
_numbers = count()


def cache(policy: Policy | None = None, *, secret: bytes = SECRET) -> VerdictCache:
    made = VerdictCache(secret)
    made.follow(RELEASE, policy or Policy())
    return made


def teach(cache: VerdictCache, *bodies: str, opinion: Opinion = BENIGN) -> None:
    """Have events come, one by one, about which the model says this wherever it is asked."""
    for body in bodies:
        event = Event(id=EventId(f"o.{next(_numbers)}"), source="s", received_at_ms=0, text=body, body=body)
        turn = cache.recall([event])
        while turn.asked:
            cache.learn(turn, {event.id: opinion})


def logins(number: int, user: str = "root") -> list[str]:
    """So many different events of one template."""
    return [f"sshd: Failed password for {user} from 198.51.100.{at} port {40_000 + at}" for at in range(1, number + 1)]
