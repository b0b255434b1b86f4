"""Thresholds and routes: small, versioned, changes often."""

from typing import Literal

from msgspec import Struct, field

from models.contracts.scalars import Name, Number, Probability

Route = Literal["accepted", "escalated", "review", "unsure"]
ROUTES: tuple[Route, ...] = ("accepted", "escalated", "review", "unsure")


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="policy/1"):
    """From which confidence on a verdict stands by itself, and where the others go."""

    number: Number = 1
    accept_at: Probability = 0.8  # a verdict at the threshold is accepted
    accept_at_by_label: dict[Name, Probability] = field(default_factory=dict)  # overrides `accept_at`
    mass_floor: Probability = 0.0  # below this label mass nothing is accepted, however confident
    doubtful: Literal["escalated", "review", "unsure"] = "review"  # where what is not accepted goes
