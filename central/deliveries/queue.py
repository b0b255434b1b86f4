"""Verdicts and incidents to the analyst queue: a batch is one transaction, and a repeat changes nothing."""

from collections.abc import Callable, Sequence
from time import time

import structlog

from central.queue.database import database_url
from central.queue.item import Asking, Settling, read
from central.queue.store import Store
from dataflows.connectors.courier import Refusal
from models.contracts.errors import InputError, UnavailableError

log = structlog.get_logger()

_SWEEP_EVERY_S = 600.0
_SWEPT_AT_ONCE = 5000


class QueueCarrier:
    """Takes every verdict, whatever its route: what is accepted closes what waited for a person.

    What was superseded is kept for `keep_s`, so that a verdict of a lower revision that comes late waits for nobody.
    """

    def __init__(self, url: str, *, keep_s: float = 7 * 24 * 3600.0, clock: Callable[[], float] = time) -> None:
        """Take the database's URL; nothing is opened yet.

        Raises:
            ConfigError: it is of no database that we know.
        """
        database_url(url)
        self._url = url
        self._keep_s = keep_s
        self._clock = clock
        self._store: Store | None = None
        self._swept_at = float("-inf")

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        found: list[Asking | Settling] = []
        refusals = []
        for position, payload in enumerate(payloads):
            try:
                record = read(payload)
            except InputError as error:
                refusals.append(Refusal(position, str(error)))
            else:
                if record is not None:
                    found.append(record)
        try:
            store = self._store = self._store or Store(self._url)
            if found:
                store.put(found, int(self._clock() * 1000))
            self._sweep(store)
        except UnavailableError:
            self.close()  # a connection that has failed once is not trusted again
            raise
        return refusals

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _sweep(self, store: Store) -> None:
        """Remove old rows; where there are many of them, some with every delivery."""
        now_s = self._clock()
        if now_s - self._swept_at >= _SWEEP_EVERY_S:
            gone = store.forget(int((now_s - self._keep_s) * 1000), _SWEPT_AT_ONCE)
            if gone < _SWEPT_AT_ONCE:
                self._swept_at = now_s
            if gone:
                log.info("queue_swept", superseded=gone)
