"""Why an engine said nothing about an event, and the opinion that stands for it. Pure."""

from typing import Literal

from models.contracts.opinion import Opinion

Reason = Literal["engine-down", "engine-timeout", "engine-nonsense", "engine-refused", "engine-untrusted"]
"""Is not there, or says that it cannot; took too long; answered what is no answer; refuses this event; is another
model than the one that was wanted.
"""


def unanswered(reason: Reason, labels: int) -> Opinion:
    """Return the opinion of nobody: every label as probable as any other, and none of them covered by a model."""
    return Opinion(probabilities=(1 / labels,) * labels, label_mass=0.0, unanswered=reason)
