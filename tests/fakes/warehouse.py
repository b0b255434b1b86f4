"""What a warehouse holds, as somebody who asks sees it."""

from typing import Any

from central.ask import asked


def rows(url: object, sql: str) -> list[tuple[Any, ...]]:
    """What a query comes to."""
    with asked(sql, str(url)) as result:
        return [tuple(row) for row in result.rows]


def standing(url: object) -> list[tuple[Any, ...]]:
    """Id, revision and label of every verdict that stands."""
    return rows(url, "SELECT id, revision, label FROM verdicts ORDER BY ALL")


def state(url: object) -> list[tuple[Any, ...]]:
    """The same, and then that of every revision."""
    return rows(
        url,
        "SELECT 1, id, revision, label, release FROM verdicts "
        "UNION ALL SELECT 2, id, revision, label, release FROM history ORDER BY ALL",
    )
