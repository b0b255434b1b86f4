"""What a GPU would do; skipped, and said so, where none is at hand."""

from bench.row import Row

_SKIPPED = "skipped: no GPU was at hand to write and check this measurement with"


def rows() -> list[Row]:
    """Return the rows, without figures."""
    return [Row(name=name, value=0.0, unit=_SKIPPED) for name in ("gpu_labels_per_s", "gpu_share_of_limit")]
