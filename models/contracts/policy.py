"""Thresholds and routes: small, versioned, changes often."""

import math
from typing import Final, Literal

from msgspec import Struct, field

from models.contracts.scalars import LabelName, Number, Probability

Route = Literal["accepted", "escalated", "review", "unsure"]
ROUTES: tuple[Route, ...] = ("accepted", "escalated", "review", "unsure")

NEVER: Final = 1.0
"""As a threshold: the label is not accepted, not even at a confidence that was rounded up to 1."""


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="policy/1"):
    """From which confidence on a verdict stands by itself, and where the others go.

    A verdict at the threshold is accepted, but for a threshold of 1, which means that the label is never accepted.
    """

    number: Number = 1
    accept_at: Probability = 0.8
    accept_at_by_label: dict[LabelName, Probability] = field(default_factory=dict)  # overrides `accept_at`
    mass_floor: Probability = 0.0  # below this label mass nothing is accepted, however confident
    doubtful: Literal["escalated", "review", "unsure"] = "review"  # where what is not accepted goes

    def accepts_from(self, label: str) -> float:
        """Return the confidence from which on a verdict with this label is accepted; infinity when it never is."""
        threshold = self.accept_at_by_label.get(label, self.accept_at)
        return threshold if threshold < NEVER else math.inf
