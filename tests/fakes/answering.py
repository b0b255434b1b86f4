"""A classifier behind a verdict cache, as the flow asks them: windows of texts in, verdicts out, a clock of its own."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from dataflows.cache.entry import Entry, Refusal
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Unobserved
from dataflows.operators.answer import answer_window
from dataflows.operators.decide import decide_window
from models.contracts.event import DeadLetter, Event
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules, Policy
from models.contracts.scalars import EventId
from models.contracts.task import Field, Task
from models.contracts.verdict import Verdict
from tests.fakes.classifier import TASK, ScriptedClassifier, by_word, release

GRAVE_TASK = replace(
    TASK,
    fields=(
        Field(name="source", description="from where"),
        Field(name="target", description="to where"),
        Field(name="technique", description="how", kind="choice", choices=("T1110", "T1190")),
    ),
    fields_for=("suspicious", "critical"),
)
UNAUDITED: dict[str, Any] = {"audit_rate": 0.0, "audit_rate_young": 0.0, "audit_rate_grave": 0.0}


class Answering:
    """Nothing is audited but by rules that a test gives."""

    def __init__(
        self,
        answer: Callable[[str], Opinion] = by_word,
        *,
        secret: bytes = b"secret",
        task: Task = TASK,
        doubtful_route: str = "review",
        **rules: Any,
    ) -> None:
        self.now = 1_700_000_000.0
        self.classifier = ScriptedClassifier(answer)
        self.classifier._release = release(1, task)
        self.cache = VerdictCache(secret, clock=lambda: self.now)
        self.policy = Policy(
            accept_at=0.8,
            doubtful=doubtful_route,  # type: ignore[arg-type]
            cache=CacheRules(**(UNAUDITED | rules)),
        )
        self.letters: list[DeadLetter] = []
        self._numbers = count()

    def window(self, *texts: str, ids: Sequence[str] = (), truncated: bool = False) -> list[Verdict]:
        """Return the verdicts on one window, and behind them those that supersede earlier ones."""
        own = ids or [f"o.{next(self._numbers)}" for _ in texts]
        events = [
            Event(id=EventId(each), source="hosts", received_at_ms=0, text=text, body=text, truncated=truncated)
            for each, text in zip(own, texts, strict=True)
        ]
        answered = answer_window(events, self.classifier, self.policy, self.cache, Unobserved())
        self.letters += answered.letters
        return [verdict for judged in answered.judged for verdict in decide_window(judged, self.policy)]

    def say(self, *texts: str) -> list[Verdict]:
        """Return the verdicts on texts that come one by one, without what supersedes earlier ones."""
        return [self.window(text)[0] for text in texts]

    def rule(self, **rules: Any) -> None:
        """Put another policy in force, which differs in these rules of the cache."""
        self.policy = replace(self.policy, cache=replace(self.policy.cache, **rules))

    @property
    def asked(self) -> list[str]:
        """Every text that the model was asked about, in order."""
        return [text for texts in self.classifier.asked for text in texts]

    def entry(self, text: str) -> Entry | Refusal | None:
        """Return what the cache knows of the template of a text."""
        return self.cache.explain(text)[1]


def jobs(count: int, first: int = 10_000) -> list[str]:
    """Return so many different events of one template."""
    return [f"job {number} ended" for number in range(first, first + count)]
