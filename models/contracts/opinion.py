"""What a model says about a text: a probability per label, and the mass those labels cover."""

from msgspec import Struct

from models.contracts.scalars import Probability


class Opinion(Struct, frozen=True, kw_only=True, gc=False):
    """Calibrated probabilities in the task's label order; they sum to 1.

    `label_mass` is the share of the model's whole distribution that the labels cover before calibration; it falls
    when a text is unlike anything the model knows. Fields hold what was found, by field name; a field that was not
    found is absent.
    """

    probabilities: tuple[float, ...]
    label_mass: Probability
    fields: dict[str, tuple[str, ...]] = {}
    truncated: bool = False  # the text did not fit the model's context and was cut
    ungrounded: int = 0  # values dropped because they do not occur in the text
    unanswered: str = ""  # why no model said anything: short and countable, as `engine-timeout`
