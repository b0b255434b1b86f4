"""How often a template may be wrong, when so many audits disagreed with none or some of its answers. Pure.

Exact one-sided bounds of a binomial share: Clopper and Pearson 1934, The use of confidence or fiducial limits.
"""

import math
from typing import Final

CONFIDENCE: Final = 0.95
_STEPS = 60  # of bisection: finer than a float tells
_NEGLIGIBLE = 1e-17


def upper_bound(audits: int, disagreements: int) -> float:
    """Return the share of wrong answers that is exceeded with 5 % probability at most; 1 where nothing was audited."""
    if disagreements >= audits:
        return 1.0
    if disagreements == 0:
        return 1.0 - math.pow(1.0 - CONFIDENCE, 1.0 / audits)
    low, high = disagreements / audits, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(disagreements, audits, middle) > 1.0 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def audits_needed(bound: float) -> int:
    """Return how many audits, none of which disagrees, put the share of wrong answers below `bound`."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-bound)) if 0.0 < bound < 1.0 else 0


def _at_most(count: int, trials: int, share: float) -> float:
    """Return the probability of `count` or fewer, of which more are expected."""
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(count + 1)
        - math.lgamma(trials - count + 1)
        + count * math.log(share)
        + (trials - count) * math.log1p(-share)
    )
    total = 0.0
    for hits in range(count, -1, -1):
        total += term
        term *= hits * (1.0 - share) / ((trials - hits + 1) * share)
        if term < total * _NEGLIGIBLE:  # and so is what follows, which is less
            break
    return total
