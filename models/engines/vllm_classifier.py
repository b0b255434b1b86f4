"""`VllmClassifier`: a decoder in vLLM's own engine, a process of ours. The only importer of vllm.

A batch is one call: one prompt for each question of the labels' tree behind each event, as tokens; the engine keeps the
instruction, batches as it likes, and answers with the log-probabilities of exactly the labels' tokens. The fields are a
second call, written under a grammar. A batch that takes longer than it may is given up, and the engine with it: vLLM
has no way to take a request back from a process that hangs.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

# It asks the network for nothing, and tells nobody that it runs.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import psutil
from msgspec import Struct
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineDeadError

from models.contracts.errors import ConfigError, UnavailableError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.decoder_task import ANSWER_TOKENS, NO_FIELDS, DecoderTask, Fields, Suffix
from models.engines.field_grammar import grammar_of, values_of
from models.engines.hugging_face import HuggingFaceTokeniser
from models.engines.memory import REMEMBERED, Memory
from models.engines.unanswered import unanswered
from models.labels import Float64s
from models.vocabulary import TextEncoder

T = TypeVar("T")

_MOST_ANSWERS: Final = 128  # vLLM's MAX_LOGPROB_TOKEN_IDS
_STARTS_WITHIN_S: Final = 900.0  # it may compile kernels
_LOOK_EVERY_S: Final = 0.2


class _Asked(Struct, frozen=True):
    suffix: Suffix
    prompt: list[int]


class VllmClassifier:
    """A `Classifier` on a checkpoint that vLLM runs."""

    def __init__(
        self,
        checkpoint: Path,
        release: Release,
        *,
        context_tokens: int = 1024,
        budget_s: float = 10.0,
        remembered: int = REMEMBERED,
        **options: Any,
    ) -> None:
        """Start the engine; `options` are vLLM's own, such as `dtype`.

        Raises:
            ConfigError: there is no checkpoint.
            UntrustedError: vLLM does not run it, or it cannot answer the task.
            UnavailableError: the engine does not start.
        """
        if not (checkpoint / "config.json").is_file():
            raise ConfigError(f"{checkpoint}: holds no `config.json`; give the folder of a checkpoint")
        self._checkpoint, self._release = checkpoint, release
        self._budget_s = budget_s
        self._memory = Memory(remembered)
        self._lock = threading.Lock()  # the engine is one thread's at a time
        self._ended = ""  # why
        before = set(multiprocessing.active_children())
        self._llm = self._started(context_tokens, options)
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        # They are to end with it, and do not where it is killed.
        self._workers = [
            worker for child in self._processes for worker in psutil.Process(child.pid).children(recursive=True)
        ]
        try:
            tokeniser: Any = self._llm.get_tokenizer()
            self._task = DecoderTask(
                release,
                TextEncoder(_raw(tokeniser)),
                tokeniser.chat_template,
                cells=min(context_tokens, self._llm.model_config.max_model_len),
                where=str(checkpoint),
                most=_MOST_ANSWERS,
            )
            self._writing = None
            if self._task.reads_fields:
                grammar = StructuredOutputsParams(grammar=grammar_of(release.task))
                self._writing = SamplingParams(temperature=0, structured_outputs=grammar)
            with self._lock:  # the first answer of an engine takes several times as long as any other
                self._in_time(lambda: self._read([""]), _STARTS_WITHIN_S)
        except BaseException:
            self.close()
            raise

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        with self._lock:
            if self._ended:
                raise self._end_of_it()
            known = {text: self._memory.recall(text) for text in dict.fromkeys(texts)}
            new = [text for text, opinion in known.items() if opinion is None]
            if new:
                try:
                    said = self._in_time(lambda: self._read(new), self._budget_s)
                except TimeoutError:
                    self._kill(f"did not answer {len(new)} events within {self._budget_s:g} s")
                    said = dict.fromkeys(new, unanswered("engine-timeout", len(self._release.task.labels)))
                self._memory.remember(said)
                known |= said
            return [opinion for text in texts if (opinion := known[text]) is not None]

    def close(self) -> None:
        """End the engine, after what is being classified."""
        with self._lock:
            if not self._ended:
                self._kill("the classifier is closed")

    def _started(self, context_tokens: int, options: dict[str, Any]) -> LLM:
        try:
            return LLM(
                model=str(self._checkpoint),
                max_model_len=context_tokens,
                enable_prefix_caching=True,
                seed=0,
                disable_log_stats=True,
                **options,
            )
        except (ValueError, OSError, TypeError, KeyError) as error:
            raise UntrustedError(f"{self._checkpoint}: vLLM does not load it: {error}") from error
        except RuntimeError as error:  # its process ended, for want of memory perhaps
            raise UnavailableError(f"{self._checkpoint}: vLLM does not start: {error}") from error

    def _read(self, texts: Sequence[str]) -> dict[str, Opinion]:
        task = self._task
        suffixes = {text: task.suffix(text) for text in texts}
        asked = {
            suffix.key: _Asked(suffix, [*task.before, *suffix.tokens.tolist()]) for suffix in suffixes.values()
        }  # texts that differ may read the same
        logs = dict(zip(asked, self._labels(list(asked.values())), strict=True))
        fields = self._fields(asked, {key: task.label_of(log) for key, log in logs.items()})
        opinions = {key: task.opinion(one.suffix, logs[key], fields.get(key, NO_FIELDS)) for key, one in asked.items()}
        return {text: task.grounded(opinions[suffix.key], suffix, text) for text, suffix in suffixes.items()}

    def _labels(self, asked: Sequence[_Asked]) -> list[Float64s]:
        """Return the log of each label's raw probability behind each prompt."""
        questions = self._task.labels.questions
        wanted = [
            SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=question.answers.tolist(), detokenize=False)
            for question in questions
        ]
        prompts = [[*one.prompt, *question.path] for one in asked for question in questions]
        outputs = self._generate(prompts, wanted * len(asked))
        answers = [
            np.array([output.logprobs[0][answer].logprob for answer in question.answers.tolist()])
            for output, question in zip(outputs, [*questions] * len(asked), strict=True)
        ]
        return [
            self._task.labels.read(answers[at : at + len(questions)]) for at in range(0, len(answers), len(questions))
        ]

    def _fields(self, asked: dict[bytes, _Asked], labels: dict[bytes, int]) -> dict[bytes, Fields]:
        """Have fields written behind the prompts whose label wants them."""
        keys = [key for key, label in labels.items() if self._task.has_fields(label)]
        if self._writing is None or not keys:
            return {}
        prompts, wanted = [], []
        for key in keys:
            spelling = self._task.label_tokens[labels[key]]
            prompts.append([*asked[key].prompt, *spelling])
            wanted.append(self._writing.clone())
            wanted[-1].max_tokens = ANSWER_TOKENS - len(spelling)
        outputs = self._generate(prompts, wanted)
        return {
            key: values_of(self._release.task, output.text, asked[key].suffix.body)
            for key, output in zip(keys, outputs, strict=True)
        }

    def _generate(self, prompts: Sequence[Sequence[int]], wanted: Sequence[SamplingParams]) -> list[Any]:
        tokens = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        return [done.outputs[0] for done in self._llm.generate(tokens, list(wanted), use_tqdm=False)]

    def _in_time(self, work: Callable[[], T], seconds: float) -> T:
        """Do something with the engine.

        Raises:
            TimeoutError: it takes longer.
            UnavailableError: the engine is dead.
        """
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 # whoever waits is told
                done.set_exception(error)

        threading.Thread(target=do, name="vllm-engine", daemon=True).start()
        deadline = monotonic() + seconds
        while not done.done():
            wait([done], min(_LOOK_EVERY_S, max(deadline - monotonic(), 0)))
            # vLLM notices that its process was killed, and yet leaves whoever waits for it waiting.
            if not all(process.is_alive() for process in self._processes):
                self._kill("vLLM's process has ended")
                raise self._end_of_it()
            if not done.done() and monotonic() > deadline:
                raise TimeoutError
        try:
            return done.result()
        except EngineDeadError as error:
            self._kill(f"vLLM's engine is dead: {error}")
            raise self._end_of_it() from error

    def _kill(self, why: str) -> None:
        """End the engine's process, which may hang and not hear that it is to end; then whoever waits for it."""
        self._ended = why
        for process in self._processes:
            process.kill()
            process.join()
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        self._llm.llm_engine.engine_core.outputs_queue.put_nowait(EngineDeadError())

    def _end_of_it(self) -> UnavailableError:
        return UnavailableError(f"{self._checkpoint}: {self._ended}")


def _raw(tokeniser: Any) -> HuggingFaceTokeniser:
    def tokenise(text: str, *, add_special: bool, parse_special: bool) -> tuple[list[int], list[str]]:
        numbers = tokeniser.encode(text, add_special_tokens=add_special, split_special_tokens=not parse_special)
        return numbers, tokeniser.convert_ids_to_tokens(numbers)

    added = {number: token.content for number, token in tokeniser.added_tokens_decoder.items()}
    return HuggingFaceTokeniser(tokenise, added, tokeniser.bos_token or "", tokeniser.eos_token or "")
