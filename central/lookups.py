"""What is known of hosts and addresses, kept up to date: a thread for each table reads its source again and again.

The flow only looks into tables that are in memory. A source that is away, or that says what is no table, is tried again
at growing intervals; meanwhile the table it said last gets older, and what is done then is the operator's choice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic
from typing import Literal

import structlog

from central.lookup_sources import CompactedTopic, CsvFile, SqlQuery, TableSource
from dataflows.backoff import Backoff
from dataflows.connectors.kafka import Cluster
from dataflows.lookup import Freshness, Tables
from dataflows.operators.enrich import Enriching, Enrichment
from dataflows.sections import Seconds, Section
from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.scalars import FactName, Number

_BACKOFF = Backoff(first_s=0.5, most_s=30.0)
_CLOSE_S = 1.0

log = structlog.get_logger()


class _Lookup(Section, frozen=True, kw_only=True, tag_field="kind"):
    """What every table has."""

    name: FactName
    fresh_s: Seconds = 3600.0  # since its source last said that so it is
    when_stale: Literal["keep", "without", "wait"] = "keep"
    most_rows: Number = 1_000_000  # a few hundred bytes of memory each


class CsvLookup(_Lookup, frozen=True, kw_only=True, tag="csv"):
    """A file that somebody replaces: written under another name, and renamed."""

    path: str
    key: str  # the column
    look_every_s: Seconds = 10.0


class SqlLookup(_Lookup, frozen=True, kw_only=True, tag="sql"):
    """What a query returns; SQLite and PostgreSQL have time limits."""

    url: str  # SQLAlchemy's
    statement: str
    key: str  # the column
    look_every_s: Seconds = 300.0


class KafkaLookup(_Lookup, frozen=True, kw_only=True, tag="kafka"):
    """A compacted topic, whose records are flat JSON objects."""

    topic: str
    look_every_s: Seconds = 5.0


LookupSection = CsvLookup | SqlLookup | KafkaLookup


class Lookups:
    """The tables of one process, and the threads that keep them."""

    def __init__(self, sections: Sequence[LookupSection], cluster: Cluster) -> None:
        """Describe them; nothing is read yet.

        Raises:
            ConfigError: two have one name, or a URL is none.
        """
        freshness = {each.name: Freshness(fresh_s=each.fresh_s, when_stale=each.when_stale) for each in sections}
        if len(freshness) < len(sections):
            raise ConfigError(f"`lookups`: found {[each.name for each in sections]}, wanted each name once")
        self.tables = Tables(freshness)
        self._stop = Event()
        self._refreshers = [
            Refresher(each.name, source_of(each, cluster), self.tables, each.look_every_s, self._stop)
            for each in sections
        ]

    def enriching(self, wanted: Sequence[Enrichment]) -> Enriching | None:
        """Return what the flow is to look up here; None where that is nothing.

        Raises:
            ConfigError: a table is not there, or a fact is called as a table is.
        """
        names = {refresher.name for refresher in self._refreshers}
        for each in wanted:
            if each.table not in names:
                raise ConfigError(f"`enrich`: found `table` {each.table}, wanted one of {sorted(names)}")
            taken = names.intersection((*each.facts, *each.otherwise))
            if taken:
                raise ConfigError(f"`enrich`: found a fact `{min(taken)}`, wanted a name that no table has")
        return Enriching(tuple(wanted), self.tables) if wanted else None

    def ages_s(self) -> dict[str, Callable[[], float]]:
        """Return, by table, what tells how long ago its source last said how things are; not a number: it never did."""

        def told(name: str) -> float:
            age_s = self.tables.age_s(name)
            return nan if age_s is None else age_s

        return {refresher.name: partial(told, refresher.name) for refresher in self._refreshers}

    def start(self, within_s: float = 10.0) -> None:
        """Start to read; return when every source was tried once, or after so long."""
        deadline = monotonic() + within_s
        for refresher in self._refreshers:
            refresher.start()
        for refresher in self._refreshers:
            refresher.tried.wait(max(0.0, deadline - monotonic()))

    def close(self) -> None:
        """Stop to read. A thread that waits for a source is not waited for."""
        self._stop.set()
        for refresher in self._refreshers:
            refresher.close()


class Refresher:
    """Keeps one table as its source says it."""

    def __init__(
        self,
        name: str,
        source: TableSource,
        tables: Tables,
        look_every_s: float,
        stop: Event,
        *,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self.name = name
        self.tried = Event()
        self._source = source
        self._tables = tables
        self._look_every_s = look_every_s
        self._stop = stop
        self._backoff = backoff
        self._thread = Thread(target=self._run, name=f"lookup-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        delays = None
        try:
            while not self._stop.is_set():
                try:
                    self._refresh()
                except (UnavailableError, InputError) as error:
                    if delays is None:
                        delays = self._backoff.delays(Random())  # noqa: S311 - jitter, not a secret
                        log.warning("lookup_failing", lookup=self.name, reason=str(error))
                    delay_s = next(delays)
                except Exception:
                    # A thread that ends says nothing, and its table would only grow old.
                    log.exception("lookup_failed", lookup=self.name, action="tries again")
                    delays = delays or self._backoff.delays(Random())  # noqa: S311 - jitter, not a secret
                    delay_s = next(delays)
                else:
                    if delays is not None:
                        log.info("lookup_recovered", lookup=self.name)
                    delays, delay_s = None, self._look_every_s
                self.tried.set()
                self._stop.wait(delay_s)
        finally:
            self._source.close()

    def _refresh(self) -> None:
        table = self._source.read()
        if table is None:
            self._tables.confirm(self.name)
        else:
            self._tables.put(self.name, table)


def source_of(section: LookupSection, cluster: Cluster) -> TableSource:
    """Return the source that a section describes.

    Raises:
        ConfigError: its URL is none, or the driver is not installed.
    """
    match section:
        case CsvLookup():
            return CsvFile(Path(section.path), section.key, section.most_rows)
        case SqlLookup():
            return SqlQuery(section.url, section.statement, section.key, section.most_rows)
        case KafkaLookup():
            return CompactedTopic(cluster, section.topic, section.most_rows)
