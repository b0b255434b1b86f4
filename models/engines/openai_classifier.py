"""`OpenAiClassifier`: a decoder behind a server that speaks OpenAI's API, all of a batch asked about at once.

An event is tokenised by the server, put behind the instruction as tokens, and the labels' probabilities are read off
one completion for each question of the labels' tree. So many events are on their way at once, each with a time of its
own; one that is not answered in its time, or not at all, has an opinion that says so, and the others have theirs.
"""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import numpy as np

from models.contracts.errors import ConfigError, InputError, UnavailableError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.decoder_task import ANSWER_TOKENS, NO_FIELDS, DecoderTask, Fields
from models.engines.field_grammar import grammar_of, values_of
from models.engines.memory import REMEMBERED, Memory
from models.engines.openai_server import OpenAiServer
from models.engines.rehearsal import Rehearsal
from models.engines.server_dialects import DIALECTS, Dialect, served
from models.engines.unanswered import Reason, unanswered
from models.labels import Float64s
from models.vocabulary import TextEncoder

T = TypeVar("T")

_CERTAIN: Final = 1.001  # the labels' probabilities sum to no more, but for rounding


class OpenAiClassifier:
    """A `Classifier` on a decoder that vLLM's server or llama.cpp's serves."""

    def __init__(
        self,
        url: str,
        release: Release,
        *,
        model: str = "",
        api_key: str = "",
        context_tokens: int = 1024,
        budget_s: float = 10.0,
        concurrency: int = 64,
        attempts: int = 3,
        remembered: int = REMEMBERED,
    ) -> None:
        """Ask the server what it is, and one question as every event asks it.

        An event may take `budget_s`, retries included, from when it is sent.

        Raises:
            ConfigError: this is no address, or the server has not this model.
            UntrustedError: it is no server of a kind that is known, or its model cannot answer the task.
            UnavailableError: it does not answer.
        """
        self._release = release
        self._url = url.rstrip("/").removesuffix("/v1")
        self._budget_s = budget_s
        self._concurrency = concurrency
        self._memory = Memory(remembered)
        self._closed = False
        self._gate = threading.Lock()  # nothing is begun once it is closed
        self._places = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        self._server: OpenAiServer | None = None
        with ExitStack() as failed:
            failed.callback(self.close)
            opening = self._open(model, api_key, context_tokens, attempts)
            try:
                self._wait(asyncio.wait_for(opening, budget_s))
            except TimeoutError as error:
                raise UnavailableError(f"{self._url}: does not answer within {budget_s:g} s") from error
            except InputError as error:
                raise UntrustedError(f"{error}; refused it") from error
            failed.pop_all()

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        if self._closed:
            raise self._end_of_it()
        known = {text: self._memory.recall(text) for text in dict.fromkeys(texts)}
        new = [text for text, opinion in known.items() if opinion is None]
        if new:
            said = dict(zip(new, self._wait(self._answers(new)), strict=True))
            self._memory.remember(said)
            known |= said
        return [opinion for text in texts if (opinion := known[text]) is not None]

    def close(self) -> None:
        """Give up what is on its way, then connections and the thread."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, model: str, api_key: str, context_tokens: int, attempts: int) -> None:
        """Find out what kind of server it is, and what its vocabulary makes of the task; then ask it something."""
        server = OpenAiServer(self._url, api_key=api_key, connections=self._concurrency, attempts=attempts)
        self._server = server
        self._rehearsal = Rehearsal(server.post)
        found = served(await server.get("/v1/models"), model, self._url)
        kind = DIALECTS[found.owned_by]
        try:
            dialect: Dialect = kind(found, await server.get(kind.about_path))
        except InputError as error:
            raise ConfigError(f"{error}; start vLLM with `--enable-tokenizer-info-endpoint`") from error
        self._post, self._dialect = server.post, dialect
        self._task = await self._rehearsal.do(
            lambda: DecoderTask(
                self._release,
                _Encoder(dialect.tokeniser(self._rehearsal.ask)),
                dialect.chat_template,
                cells=min(context_tokens, dialect.context_tokens),
                where=self._url,
                most=dialect.most_answers,
            )
        )
        self._grammar = grammar_of(self._release.task) if self._task.reads_fields else ""
        await self._read("")

    async def _answers(self, texts: Sequence[str]) -> list[Opinion]:
        row = _Row(self._concurrency)
        return await asyncio.gather(*(self._answer(text, row) for text in texts))

    async def _answer(self, text: str, row: "_Row") -> Opinion:
        async with self._places:
            # As many as are under way at once are lost, one after the other: the rest need not be, each for its time.
            if row.is_lost:
                return self._none(row.reason)
            try:
                opinion = await asyncio.wait_for(self._read(text), self._budget_s)
            except TimeoutError:
                row.missed("engine-timeout")
            except UnavailableError:
                row.missed("engine-down")
            except UntrustedError:
                row.missed("engine-nonsense")
            except (InputError, ConfigError):
                return self._none("engine-refused")
            else:
                row.answered()
                return opinion
            return self._none(row.reason)

    async def _read(self, text: str) -> Opinion:
        """Have one text tokenised, its labels weighed, and its fields written."""
        task = self._task
        suffix = await self._rehearsal.do(lambda: task.suffix(text))
        prompt = [*task.before, *suffix.tokens.tolist()]
        answers = [self._label(prompt, number) for number in range(len(task.labels.questions))]
        logs = task.labels.read(await asyncio.gather(*answers))
        if np.exp(logs).sum() > _CERTAIN:
            raise UntrustedError(f"{self._url}: the labels have more than all of the probability")
        label = task.label_of(logs)
        fields = await self._fields(prompt, label, suffix.body) if task.has_fields(label) else NO_FIELDS
        return task.grounded(task.opinion(suffix, logs, fields), suffix, text)

    async def _label(self, prompt: Sequence[int], number: int) -> Float64s:
        question = self._task.labels.questions[number]
        answers = question.answers.tolist()
        reply = await self._post(self._dialect.labels([*prompt, *question.path], answers))
        return self._dialect.read_labels(reply, answers)

    async def _fields(self, prompt: Sequence[int], label: int, body: str) -> Fields:
        spelling = self._task.label_tokens[label]
        request = self._dialect.text([*prompt, *spelling], self._grammar, ANSWER_TOKENS - len(spelling))
        return values_of(self._release.task, self._dialect.read_text(await self._post(request)), body)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what the loop does.

        Raises:
            UnavailableError: it is closed, or is closed meanwhile.
        """
        with self._gate:
            if self._closed:
                work.close()
                raise self._end_of_it()
            future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise self._end_of_it() from error

    def _end_of_it(self) -> UnavailableError:
        return UnavailableError(f"{self._url}: the classifier is closed")

    def _none(self, reason: Reason) -> Opinion:
        return unanswered(reason, len(self._release.task.labels))


class _Row:
    """Events of one batch that were not answered, one after the other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self.reason: Reason = "engine-down"

    @property
    def is_lost(self) -> bool:
        return self._count >= self._most

    def missed(self, reason: Reason) -> None:
        self._count += 1
        self.reason = reason

    def answered(self) -> None:
        self._count = 0


class _Encoder(TextEncoder):
    """Encodes by a server, so that one event may not cost more than a few requests."""

    most_marks = 8

    def _by_character(self, text: bytes) -> list[int]:
        raise InputError(f"{text[:40]!r}…: is full of the model's own marks, and is not taken apart over a network")
