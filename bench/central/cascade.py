"""What the centre's release knows more, and keeps of it when gateways hand it only what they are unsure of.

Both shipped releases label the events of vendors that neither learnt from. Below a threshold on the gateway's
confidence the centre's label counts, above it the gateway's. The threshold is chosen on one half of those vendors and
measured on the other, and the other way round, so that no event is measured with a threshold that it chose.
"""

import sys
from hashlib import sha256

import msgspec
import numpy as np
from msgspec import Struct

from bench.quality.measures import ROOT, Shipped, shipped
from bench.row import Row
from quantize import ask, injection, measure
from quantize.calibrate import Floats, Labels
from quantize.measure import Flags
from quantize.product_groups import product_groups

CURVE = ROOT / "build" / "cascade.json"
_GATEWAY, _CENTRE = "soc-triage", "soc-triage-large"
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_INJECTION_SEED = 77  # not the recipe's
_KEPT, _ESCALATED = 0.99, 0.15
_CHOSEN_FOR = 0.135  # vendors differ: what escalates 15 % of one half would escalate more of the other half the time


class Both(Struct, frozen=True):
    """What both releases make of the same events: who is right, how sure the gateway is, and which half they are in."""

    gateway: Flags
    centre: Flags
    confidence: Floats
    vendors: Labels

    @property
    def second(self) -> Flags:
        return np.asarray(self.vendors % 2 == 1)


class Point(Struct, frozen=True):
    """A cascade: what was asked for on one half, and what came of it on the other."""

    wanted: float  # share of the events to escalate
    escalated: float
    accuracy: float
    kept: float  # of the accuracy of the centre's release alone
    at_random: float  # kept if as many had been escalated without looking at the confidence


def rows() -> list[Row]:
    """Measure the cascade, write its curve to `build/cascade.json` and return the point that is held to the targets."""
    gateway, centre = shipped(_GATEWAY), shipped(_CENTRE)
    both = _asked(gateway, centre)
    points = curve(both)
    CURVE.parent.mkdir(exist_ok=True)
    CURVE.write_bytes(b"".join(msgspec.json.encode(point) + b"\n" for point in points))
    sys.stderr.write(table(points))
    return [*rows_of(both), _injected(gateway, centre)]


def rows_of(both: Both) -> list[Row]:
    """Return what the centre's release knows more, and the cascade at its target; intervals are over vendors."""
    more = both.centre.astype(np.float64) - both.gateway
    gain = measure.estimate(lambda at: float(more[at].mean()), both.vendors)
    sent = escalated(both, _CHOSEN_FOR)
    right = np.where(sent, both.centre, both.gateway)
    kept = measure.estimate(lambda at: float(right[at].mean() / both.centre[at].mean()), both.vendors)
    share = measure.estimate_of_share(sent, both.vendors)
    alone = f"{_GATEWAY} {both.gateway.mean():.3f}, {_CENTRE} {both.centre.mean():.3f}, both {right.mean():.3f}"
    return [
        Row(
            name="cascade_gain",
            value=gain.value,
            interval=(gain.low, gain.high),
            unit=f"accuracy above {_GATEWAY}'s",
            peer=f"{_GATEWAY} {both.gateway.mean():.3f}",
            passed=gain.low > 0,
        ),
        Row(
            name="cascade_accuracy_kept",
            value=kept.value,
            interval=(kept.low, kept.high),
            unit=f"of {_CENTRE}'s accuracy",
            peer=alone,
            passed=kept.value >= _KEPT,
        ),
        Row(
            name="cascade_escalated",
            value=share.value,
            interval=(share.low, share.high),
            unit=f"share of {len(sent)}",
            passed=share.value <= _ESCALATED,
        ),
    ]


def curve(both: Both) -> list[Point]:
    """Return a cascade per share."""
    return [_point(both, share) for share in _SHARES]


def escalated(both: Both, share: float) -> Flags:
    """Return which events the centre is asked about, each by the threshold of the half that it is not in."""
    sent = np.zeros(len(both.confidence), dtype=np.bool_)
    for half in (both.second, ~both.second):
        sent[half] = both.confidence[half] < threshold(both.confidence[~half], share)
    return sent


def threshold(confidences: Floats, share: float) -> float:
    """Return the highest below which no more than this share lies."""
    most = int(share * len(confidences))
    ends = np.array([-np.inf, *np.sort(confidences)[1:], np.inf])  # none and all are asked for as such
    return float(ends[most])


def table(points: list[Point]) -> str:
    """Return the curve as a Markdown table."""
    lines = ["| escalated | accuracy | of the centre's alone | if escalated at random |", "|---|---|---|---|"]
    lines += [
        f"| {100 * point.escalated:.1f} % | {point.accuracy:.3f} | {point.kept:.3f} | {point.at_random:.3f} |"
        for point in points
    ]
    return "\n".join(lines) + "\n"


def vendors_of(products: list[str]) -> Labels:
    """Return a number per event, the same for all of a vendor; odd in one half of the vendors and even in the other."""
    group_of = {product: names[0] for product, names in product_groups(products).items()}
    by_chance = sorted(set(group_of.values()), key=lambda name: sha256(f"cascade/{name}".encode()).digest())
    number = {name: at for at, name in enumerate(by_chance)}
    return np.array([number[group_of[product]] for product in products], dtype=np.int64)


def _point(both: Both, share: float) -> Point:
    sent = escalated(both, share)
    accuracy, alone = float(np.where(sent, both.centre, both.gateway).mean()), float(both.centre.mean())
    at_random = float(both.gateway.mean()) + float(sent.mean()) * (alone - float(both.gateway.mean()))
    return Point(share, float(sent.mean()), accuracy, accuracy / alone, at_random / alone)


def _injected(gateway: Shipped, centre: Shipped) -> Row:
    """Write the same attacks into the same events, which neither calls harmless, and see whose verdicts they turn."""
    test, severity = gateway.examples.test, gateway.recipe.severity
    said = [each.on_test().chosen for each in (gateway, centre)]
    mildest = gateway.names.index(severity[0])
    harmless = (said[0] == mildest) | (said[1] == mildest)
    labels = [severity[0] if each else severity[-1] for each in harmless]
    attacks = injection.cases(test.bodies, labels, gateway.task, severity, _INJECTION_SEED)
    turned = []
    for release, before in zip((gateway, centre), said, strict=True):
        after = ask.ask(release.path, release.release, [case.text for case in attacks]).chosen
        rank = np.array([severity.index(name) for name in release.names])
        turned.append(rank[after] < rank[before[[case.event for case in attacks]]])
    vendors = vendors_of([test.examples[case.event].product for case in attacks])
    return row_of_flips(turned[0], turned[1], vendors)


def row_of_flips(gateway: Flags, centre: Flags, vendors: Labels) -> Row:
    """Return what share of attacks turned the centre's verdict to a milder one, beside the gateway's on the same.

    Args:
        gateway: of each attack, whether it turned the gateway's verdict.
        centre: and the centre's.
        vendors: whose event it is written into.
    """
    share = measure.estimate_of_share(centre, vendors)
    more = centre.astype(np.float64) - gateway
    apart = measure.estimate(lambda at: float(more[at].mean()), vendors)
    return Row(
        name="cascade_injection_flips",
        value=share.value,
        interval=(share.low, share.high),
        unit=f"share of {len(centre)}",
        peer=f"{_GATEWAY} on the same: {gateway.mean():.4f}; difference {apart}",
    )


def _asked(gateway: Shipped, centre: Shipped) -> Both:
    events, truth = gateway.examples.test.examples, gateway.truth(gateway.examples.test.examples)
    said = gateway.on_test()
    return Both(
        gateway=said.chosen == truth,
        centre=centre.on_test().chosen == truth,
        confidence=said.probabilities.max(axis=1),
        vendors=vendors_of([event.product for event in events]),
    )
