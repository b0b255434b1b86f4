"""How long an entry goes on answering when what it means has changed: hits until an audit ends it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

from bench.cache.steps import answers, events_of
from bench.cache.stream import Sizes
from bench.row import Row
from dataflows.cache.entry import Entry
from dataflows.cache.verdict_cache import VerdictCache
from models.classifier import Classifier
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Release
from models.contracts.task import Task
from models.contracts.wire import decode_toml

_TASK = Path(__file__).parents[2] / "models" / "tasks" / "soc-triage.toml"
_TARGET = 150
_LINES = 8_000  # of one template: nobody waits for as many
_BENIGN = Opinion(probabilities=(0.98, 0.01, 0.01), label_mass=1.0)
_CRITICAL = Opinion(probabilities=(0.01, 0.01, 0.98), label_mass=1.0)


class Constant:
    """A `Classifier` that says one thing of every text."""

    def __init__(self, release: Release, opinion: Opinion) -> None:
        self._release, self._opinion = release, opinion

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        return [self._opinion] * len(texts)

    def close(self) -> None:
        """Nothing is held."""


def rows(sizes: Sizes) -> list[Row]:
    """Measure an old entry of a mild label at 1 %; beside it, entries of other kinds at the default rates."""
    one = CacheRules(audit_rate=0.01, audit_rate_young=0.0, audit_rate_grave=0.0)
    default = CacheRules()
    old = delays(sizes.trials, one, hits=default.young_hits)
    shares = {
        "old and benign": delays(sizes.trials, default, hits=default.young_hits),
        "old and critical": delays(sizes.trials, default, hits=default.young_hits, before=_CRITICAL),
        "new and benign": delays(sizes.trials, default, hits=0),
        "new and critical": delays(sizes.trials, default, hits=0, before=_CRITICAL),
    }
    said = ", ".join(f"{kind} {median(found):.0f}" for kind, found in shares.items())
    value = median(old)
    latest = quantiles(old, n=20)[-1]
    return [
        Row(
            name="audit_delay",
            value=value,
            unit=f"hits, median of {len(old)}",
            peer=f"95 of 100 within {latest:.0f}; at the default rates: {said}",
            passed=value <= _TARGET,
        )
    ]


def delays(trials: int, rules: CacheRules, *, hits: int, before: Opinion = _BENIGN) -> list[int]:
    """Return, for as many gateways, how many events an entry answers wrongly that had so many right hits."""
    task = decode_toml(_TASK.read_text(encoding="utf-8"), Task, str(_TASK))
    release = Release(name="constant", number=1, task=task)
    after = _CRITICAL if before is _BENIGN else _BENIGN
    events = events_of([f"sshd: session {10_000 + number} opened for root" for number in range(_LINES)])
    policy = Policy(cache=rules)
    return [
        _delay(events, Constant(release, before), Constant(release, after), policy, number, hits=hits)
        for number in range(trials)
    ]


def _delay(
    events: Sequence[Event], before: Classifier, after: Classifier, policy: Policy, number: int, *, hits: int
) -> int:
    """Let an entry answer, change what the model says, and count what is answered until the entry is gone."""
    known = VerdictCache(number.to_bytes(8, "big"))  # each gateway draws audits of its own
    begun, wrong = 0, 0
    while not (isinstance(entry := known.explain(events[0].body)[1], Entry) and entry.answers and entry.hits >= hits):
        list(answers([events[begun]], before, policy, known))
        begun += 1
    for event in events[begun:]:
        (answer,) = answers([event], after, policy, known)
        if known.counts["disagreements"]:
            return wrong
        wrong += answer.template is not None
    raise RuntimeError(f"bench: {len(events)} events, and no audit")
