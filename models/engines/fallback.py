"""`FallbackClassifier`: one that always answers, because its engine may be slow, dead or somebody else's by now.

Where the engine does not answer, the opinion says so, and the event goes to a person with the reason; no event waits
for an engine that does not come back, and none is lost. An engine that was given up is closed and opened anew in the
background, until it answers: a server that comes back may serve another model, and another model has other tokens.
"""

import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import structlog

from models.classifier import Classifier
from models.contracts.errors import ConfigError, UnavailableError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.engines.breaker import Asked, Broken, Closed, Failed, Looking, Open, Opened, Patience, State, Trying, step
from models.engines.unanswered import Reason, unanswered

_log = structlog.get_logger()
_ENDS_WITHIN_S: Final = 30.0


class FallbackClassifier:
    """A `Classifier` in front of another, which it opens; it is unavailable only once it is closed."""

    def __init__(
        self,
        engine: Callable[[], Classifier],
        release: Release,
        *,
        patience: Patience | None = None,
    ) -> None:
        """Open the engine; one that is not there is looked for from now on.

        Raises:
            ConfigError: it can never be there.
            UntrustedError: it is there, and not what was promised.
        """
        self._open = engine
        self._release = release
        self._patience = patience or Patience()
        self._chance = Random()  # noqa: S311 - jitter, not a secret
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._state: State = Trying()
        self._engine: Classifier | None = None
        self._reason: Reason = "engine-down"
        self._looking: threading.Thread | None = None
        try:
            self._engine = engine()
        except UnavailableError as error:
            with self._lock:
                self._given_up(Failed(), str(error))
        else:
            self._state = Closed()

    @property
    def release(self) -> Release:
        return self._release

    @property
    def is_answering(self) -> bool:
        """Whether there is an engine now."""
        return self._engine is not None

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order; where nobody answers, one that says so."""
        if self._ended.is_set():
            raise self._end_of_it()
        engine = self._engine
        if engine is None:
            return self._nobody(len(texts))
        try:
            opinions = engine.classify(texts)
        except UnavailableError as error:
            if self._ended.is_set():
                raise self._end_of_it() from error
            self._tell(engine, Broken(), str(error))
            return self._nobody(len(texts))
        missed = [opinion.unanswered for opinion in opinions if opinion.unanswered]
        # An event that the engine refuses is answered, in a way: it would refuse it again.
        refused = missed.count("engine-refused")
        self._tell(
            engine,
            Asked(len(texts) - len(missed) + refused, len(missed) - refused),
            f"{len(missed)} of {len(texts)} events unanswered: {', '.join(sorted(set(missed)))}",
        )
        return opinions

    def close(self) -> None:
        """Give the engine back, and stop looking for one."""
        self._ended.set()
        with self._lock:
            engine, self._engine, looking = self._engine, None, self._looking
        if engine is not None:
            engine.close()
        if looking is not None:
            looking.join(_ENDS_WITHIN_S)

    def _tell(self, engine: Classifier, fact: Asked | Broken, why: str) -> None:
        """Tell the breaker what became of a batch, unless the engine is another one by now."""
        with self._lock:
            if engine is not self._engine:
                return
            self._engine = None if self._given_up(fact, why) else engine
        if self._engine is None:
            engine.close()

    def _given_up(self, fact: Asked | Broken | Failed, why: str) -> bool:
        """Go on to the next state; where that is to leave the engine alone, look for it after a while."""
        self._state = step(self._state, fact, self._patience, self._chance.random())
        if not isinstance(self._state, Open):
            return False
        _log.warning("engine_down", reason=why, look_again_in_s=round(self._state.delay_s, 1))
        if self._looking is None:
            self._looking = threading.Thread(target=self._look, name="engine-search", daemon=True)
            self._looking.start()
        return True

    def _look(self) -> None:
        """Open the engine anew, however long that takes."""
        while isinstance(self._state, Open):
            if self._ended.wait(self._state.delay_s):
                return
            self._state = step(self._state, Looking(), self._patience, self._chance.random())
            try:
                engine = self._open()
            except Exception as error:  # noqa: BLE001 - nobody else would ever look again
                trusted = not isinstance(error, UntrustedError | ConfigError)
                self._reason = "engine-down" if trusted else "engine-untrusted"
                with self._lock:
                    self._given_up(Failed(), str(error))
                continue
            with self._lock:
                self._reason = "engine-down"
                self._state = step(self._state, Opened(), self._patience, self._chance.random())
                self._looking = None
                if not self._ended.is_set():
                    self._engine = engine
                    _log.info("engine_back", release=self._release.title)
                    return
            engine.close()

    def _nobody(self, texts: int) -> list[Opinion]:
        return [unanswered(self._reason, len(self._release.task.labels))] * texts

    def _end_of_it(self) -> UnavailableError:
        return UnavailableError(f"engine of {self._release.title}: the classifier is closed")
