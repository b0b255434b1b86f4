"""Opinions in; verdicts, each with its route, out. Pure."""

from collections.abc import Callable
from itertools import repeat

from bytewax import operators as op
from bytewax.dataflow import Stream, operator

from dataflows.observer import Observer
from dataflows.operators.classify import Judged
from models.classifier import Current
from models.contracts.policy import Policy, Route
from models.contracts.verdict import Verdict


@operator
def decide(
    step_id: str,
    up: Stream[Judged],
    policy: Current[Policy],
    observer: Observer,
    centre_is_away: Callable[[], bool] = lambda: False,
) -> Stream[list[Verdict]]:
    """Turn opinions into verdicts by the policy in force; it is read once a window, and so is `centre_is_away`."""

    def step(judged: Judged) -> list[Verdict]:
        verdicts = decide_window(judged, policy.get(), centre_is_away=centre_is_away())
        observer.decided(verdicts)
        return verdicts

    return op.map("verdicts", up, step)


def decide_window(judged: Judged, policy: Policy, *, centre_is_away: bool = False) -> list[Verdict]:
    """Return one verdict per event, in order.

    The most probable label stands, and the verdict is accepted, when its probability reaches the label's threshold and
    the labels cover at least `mass_floor` of what the model would say. Otherwise it takes the policy's doubtful route;
    there, `unsure` means the task's default label with its own probability. Of equally probable labels the first wins.
    What would be escalated is `unsure` while the centre is away: it still goes up, and until then the default stands.
    An event on which no model said anything has the default label and goes to review, with the reason. The first of the
    policy's rules that fits what is known of an event's asset overrides thresholds and doubtful route.
    """
    release, revision = judged.release, judged.revision
    templates = judged.templates or repeat(None, len(judged.events))
    names = release.task.label_names
    standard = [policy.accepts_from(name) for name in names], policy.doubtful
    ruled = [
        (rule, ([policy.accepts_from(name, rule) for name in names], rule.doubtful or policy.doubtful))
        for rule in policy.when
    ]
    default = names.index(release.task.default_label)
    title, number, floor = release.title, policy.number, policy.mass_floor
    verdicts = []
    for event, opinion, template in zip(judged.events, judged.opinions, templates, strict=True):
        probabilities = opinion.probabilities
        if len(probabilities) != len(names):
            raise RuntimeError(f"{title}: {len(probabilities)} probabilities for {len(names)} labels; stopped the flow")
        thresholds, doubtful = standard
        if ruled and event.context:
            thresholds, doubtful = next((other for rule, other in ruled if rule.fits(event.context)), standard)
        confidence = max(probabilities)
        best = probabilities.index(confidence)
        route: Route = "accepted"
        if opinion.unanswered:
            route, best, confidence = "review", default, probabilities[default]
        elif confidence < thresholds[best] or opinion.label_mass < floor:
            route = doubtful
            if route == "escalated" and centre_is_away:
                route = "unsure"
            if route == "unsure":
                best, confidence = default, probabilities[default]
        verdicts.append(
            # What is required goes by position: CPython builds a dictionary first for a call of more than fifteen
            # keywords, which costs as much as all else here.
            Verdict(
                event.id,
                event.text,
                names[best],
                confidence,
                dict(zip(names, probabilities)),  # noqa: B905 - `strict=` would make it twice as slow; checked above
                opinion.label_mass,
                opinion.fields,
                route,
                title,
                number,
                event.source,
                event.received_at_ms,
                occurred_at_ms=event.occurred_at_ms,
                host=event.host,
                app=event.app,
                severity=event.severity,
                truncated=event.truncated or opinion.truncated,
                replaced=event.replaced,
                topic=event.topic,
                cached=template,
                revision=event.revision + revision,
                gateway=event.gateway,
                reason=opinion.unanswered,
                context=event.context,
            )
        )
    return verdicts
