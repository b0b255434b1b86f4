"""Verdicts in; those of the routes and facts that somebody asked for, in the order of arrival, out."""

from collections.abc import Collection, Mapping

from bytewax import operators as op
from bytewax.dataflow import Stream, operator

from models.contracts.policy import ROUTES, Route
from models.contracts.verdict import Verdict


@operator
def take_routes(
    step_id: str, up: Stream[list[Verdict]], routes: Collection[Route], when: Mapping[str, str] | None = None
) -> Stream[list[Verdict]]:
    """Let verdicts on `routes` pass of whose events all of `when` is known; a list that would be empty does not."""
    facts = when or {}
    if set(routes) == set(ROUTES) and not facts:
        return up
    wanted = frozenset(routes)
    return op.filter_map("take", up, lambda verdicts: on_routes(verdicts, wanted, facts) or None)


def on_routes(verdicts: list[Verdict], routes: Collection[Route], facts: Mapping[str, str]) -> list[Verdict]:
    """Return the verdicts on `routes` of whose events all these facts are known, in order."""
    taken = [verdict for verdict in verdicts if verdict.route in routes]
    return [verdict for verdict in taken if facts.items() <= verdict.context.items()] if facts else taken
