"""One measured figure, as `build/bench.json` holds it."""

from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True):
    """`ratio` is ours against the peer in the same run; `passed` is None where a figure is only reported."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None
    passed: bool | None = None
