"""Strategies for every record that travels: anything msgspec would let in."""

import sys

from hypothesis import strategies as st

from models.contracts.answer import Answer
from models.contracts.event import DeadLetter, Event
from models.contracts.incident import Incident
from models.contracts.policy import ROUTES, ContextRule, Policy
from models.contracts.release import Calibration, Golden, Prompt, Release
from models.contracts.scalars import EventId
from models.contracts.task import Field, Label, Task
from models.contracts.verdict import Verdict

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # JSON in UTF-8 has no lone surrogates
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
event_ids = texts.map(EventId)
moments = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999
probabilities = st.floats(0, 1)
numbers = st.integers(1, sys.maxsize)
maybe_text = st.none() | texts
contexts = st.dictionaries(texts, texts, max_size=3)

events = st.builds(
    Event,
    id=event_ids,
    source=names,
    received_at_ms=moments,
    text=texts,
    body=texts,
    occurred_at_ms=st.none() | moments,
    host=maybe_text,
    app=maybe_text,
    severity=st.none() | st.integers(0, 7),
    truncated=st.booleans(),
    replaced=st.booleans(),
    topic=maybe_text,
    context=contexts,
)
dead_letters = st.builds(
    DeadLetter,
    id=event_ids,
    source=names,
    received_at_ms=moments,
    reason=names,
    detail=texts,
    raw=st.binary(max_size=60),
    topic=maybe_text,
    cut_from=moments,
)
verdicts = st.builds(
    Verdict,
    id=event_ids,
    text=texts,
    label=names,
    confidence=probabilities,
    probabilities=st.dictionaries(names, probabilities, max_size=4),
    label_mass=probabilities,
    fields=st.dictionaries(names, st.lists(texts, max_size=3).map(tuple), max_size=3),
    route=st.sampled_from(ROUTES),
    release=texts,
    policy=numbers,
    source=names,
    received_at_ms=moments,
    occurred_at_ms=st.none() | moments,
    host=maybe_text,
    app=maybe_text,
    severity=st.none() | st.integers(0, 7),
    truncated=st.booleans(),
    replaced=st.booleans(),
    topic=maybe_text,
    context=contexts,
)
answers = st.builds(
    Answer,
    id=event_ids,
    kind=st.sampled_from(["event", "incident"]),
    text=texts,
    label=names,
    by=texts,
    at_ms=moments,
    note=texts,
    revision=moments,
    model_label=names,
    confidence=probabilities,
    route=st.sampled_from(ROUTES),
    release=texts,
    policy=numbers,
    source=names,
    gateway=st.none() | names,
    cached=maybe_text,
)
policies = st.builds(
    Policy,
    number=numbers,
    accept_at=probabilities,
    accept_at_by_label=st.dictionaries(names, probabilities, max_size=3),
    mass_floor=probabilities,
    doubtful=st.sampled_from(["escalated", "review", "unsure"]),
    when=st.lists(
        st.builds(
            ContextRule,
            context=st.dictionaries(texts, texts, min_size=1, max_size=2),
            accept_at=st.none() | probabilities,
            doubtful=st.sampled_from([None, "escalated", "review", "unsure"]),
        ),
        max_size=2,
    ).map(tuple),
)
incidents = st.builds(
    Incident,
    id=texts,
    rule=names,
    key=texts,
    revision=moments,
    state=st.sampled_from(["open", "closed", "withdrawn"]),
    first_ms=moments,
    last_ms=moments,
    count=moments,
    late=moments,
    labels=st.dictionaries(names, moments, max_size=3),
    gateways=st.lists(names, max_size=2).map(tuple),
    verdicts=st.lists(verdicts, max_size=2).map(tuple),
    more=st.lists(event_ids, max_size=3).map(tuple),
    unnamed=moments,
)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Labels are distinct, and what is named is one of them."""
    labels = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    copied = st.builds(Field, name=names, description=texts, max_values=st.integers(1, 9))
    choices = st.lists(texts, min_size=1, max_size=3).map(tuple)
    choice = st.builds(Field, name=names, description=texts, kind=st.just("choice"), choices=choices)
    return Task(
        name=draw(names),
        instruction=draw(texts),
        labels=tuple(Label(name, draw(texts)) for name in labels),
        default_label=draw(st.sampled_from(labels)),
        fields=tuple(draw(st.lists(copied | choice, max_size=3))),
        fields_for=tuple(draw(st.lists(st.sampled_from(labels), max_size=2))),
        context=tuple(draw(st.lists(st.sampled_from(["criticality", "zone"]), max_size=2))),
    )


finite = st.floats(allow_nan=False, allow_infinity=False)
releases = st.builds(
    Release,
    name=names,
    number=numbers,
    task=tasks(),
    prompt=st.builds(Prompt, kind=st.sampled_from(["chat", "plain", "encoder"]), before=texts, after=texts),
    calibration=st.builds(Calibration, temperature=finite, bias=st.lists(finite, max_size=4).map(tuple)),
    policy=policies,
    golden=st.lists(st.builds(Golden, text=texts, label=names, confidence=finite), max_size=2).map(tuple),
    provenance=st.dictionaries(texts, texts, max_size=2),
)
