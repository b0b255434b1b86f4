"""Answers to Kafka: each to the answers, and as a person's verdict to the verdicts. At least once, in order.

The row of the answer is what is owed, written in one transaction with it; so a crash between the two repeats an answer
and loses none. Both topics have it by id and revision, which tell a repeat.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random
from threading import Event, Thread
from time import monotonic, time

import structlog
from msgspec import Struct

from central.queue.item import Item, answer_of, answered_verdict
from central.queue.store import Store
from dataflows.backoff import Backoff
from dataflows.connectors.courier import Carrier
from models.contracts.errors import UnavailableError
from models.contracts.wire import encode

log = structlog.get_logger()

_FAREWELL_S = 1.0


class Told(Struct, frozen=True):
    """What became of the answers that Kafka was owed."""

    published: int
    refused: int


def publish_answers(store: Store, answers: Carrier, verdicts: Carrier, clock_ms: Callable[[], int]) -> Told:
    """Publish every answer that is not yet; one that Kafka will never take is kept, with the reason.

    What a person says of an incident is no verdict on any of its events, and goes to the answers alone.

    Raises:
        UnavailableError: Kafka or the database is away; what is left is published the next time.
    """
    published = refused = 0
    while owed := store.unpublished(clock_ms()):
        reasons = {
            **_deliver(verdicts, [item for item in owed if item.kind == "event"], answered_verdict),
            **_deliver(answers, owed, answer_of),
        }
        for item_id, reason in reasons.items():
            log.warning("answer_refused", id=item_id, reason=reason)
        store.published(owed, reasons, clock_ms())
        published += len(owed) - len(reasons)
        refused += len(reasons)
    return Told(published, refused)


def _deliver(carrier: Carrier, items: Sequence[Item], record_of: Callable[[Item], Struct]) -> dict[str, str]:
    """Return why, by id, for each item that the far end will never take."""
    refusals = carrier.deliver([encode(record_of(item)) for item in items])
    return {items[refusal.position].id: refusal.reason for refusal in refusals}


class AnswersRelay:
    """Publishes what is owed now and then, in a thread of its own: what a command could not."""

    def __init__(
        self,
        url: str,
        answers: Callable[[], Carrier],
        verdicts: Callable[[], Carrier],
        *,
        every_s: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        """Take the database's URL, and what makes the ways to the two topics; nothing is opened yet."""
        self._url, self._answers, self._verdicts = url, answers, verdicts
        self._every_s = every_s
        self._backoff = backoff if backoff is not None else Backoff()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="answers-relay", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, waiting only shortly: what hangs is owed still."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_FAREWELL_S)

    def _run(self) -> None:
        delays = self._delays()
        while not self._stop.is_set():
            began = monotonic()
            try:
                self._publish_until_it_fails()
            except UnavailableError as error:
                if monotonic() - began > self._backoff.most_s:  # it had worked meanwhile
                    delays = self._delays()
                wait_s = next(delays)
                log.warning("answers_not_published", reason=str(error), wait_s=round(wait_s, 1))
                self._stop.wait(wait_s)

    def _delays(self) -> Iterator[float]:
        return self._backoff.delays(Random())  # noqa: S311 - jitter, not a secret

    def _publish_until_it_fails(self) -> None:
        with (
            closing(Store(self._url)) as store,
            closing(self._answers()) as answers,
            closing(self._verdicts()) as verdicts,
        ):
            while not self._stop.is_set():
                told = publish_answers(store, answers, verdicts, _now_ms)
                if told.published:
                    log.info("answers_published", answers=told.published)
                self._stop.wait(self._every_s)


def _now_ms() -> int:
    return int(time() * 1000)
