"""Verdicts in; those of the routes that somebody asked for, in the order of arrival, out."""

from collections.abc import Collection

from bytewax import operators as op
from bytewax.dataflow import Stream, operator

from models.contracts.policy import ROUTES, Route
from models.contracts.verdict import Verdict


@operator
def take_routes(step_id: str, up: Stream[list[Verdict]], routes: Collection[Route]) -> Stream[list[Verdict]]:
    """Let verdicts on `routes` pass; a list that would be empty does not."""
    if set(routes) == set(ROUTES):
        return up
    wanted = frozenset(routes)
    return op.filter_map("take", up, lambda verdicts: on_routes(verdicts, wanted) or None)


def on_routes(verdicts: list[Verdict], routes: Collection[Route]) -> list[Verdict]:
    """Return the verdicts on `routes`, in order."""
    return [verdict for verdict in verdicts if verdict.route in routes]
