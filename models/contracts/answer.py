"""What a person said of what waited for one: a reference label, and the verdict that it overrules or confirms."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from models.contracts.policy import Route
from models.contracts.scalars import Count, EventId, LabelName, Name, Number, Probability, UnixMillis

LONGEST_NOTE: Final = 2000

Kind = Literal["event", "incident"]


class Answer(Struct, frozen=True, kw_only=True, tag="answer/1"):
    """One per event or incident; of two with one `id` the higher `revision` stands, for people correct themselves.

    `text` and `label` are what `python -m quantize measure --events` reads of a line. What waits for a person is no
    fair sample of a stream: these labels find failures, and certify nothing.
    """

    id: EventId
    kind: Kind = "event"
    text: str
    label: LabelName  # by the person
    by: str
    at_ms: UnixMillis  # the centre's clock
    note: Annotated[str, Meta(max_length=LONGEST_NOTE)] = ""
    revision: Count  # that the person's verdict on the event has
    model_label: LabelName
    confidence: Probability  # of the model, in its own label
    route: Route
    release: str  # `<name>-<number>`
    policy: Number
    source: Name
    gateway: Name | None = None
    cached: str | None = None  # the cache entry that had answered
