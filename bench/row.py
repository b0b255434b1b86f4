"""One measured figure, as `build/bench.json` holds it."""

from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True):
    """`ratio` is ours against the peer in the same run; `passed` is None where a figure is only reported.

    `interval` is between which values the figure lies with 95 % confidence, where that was estimated.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    unit: str
    peer: str = ""
    ratio: float | None = None
    passed: bool | None = None
