"""llama.cpp as a few small objects that cannot abort the process. The only importer of llama_cpp.

llama.cpp ends the process where a caller breaks a rule, so each rule is checked before the call:

* a batch is never longer than the context's `rows`, nor asks for more outputs than it has;
* contexts die before their model: `Model.close` closes those that are open;
* one thread at a time decodes on a context, each context with its own lock;
* NULL, which ctypes hands out as a false object, is looked for after each call that may return it.

What the library writes goes to structlog at debug; its last lines are quoted in our errors.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

# Without it an abort starts gdb, where one is installed, and hangs there.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import numpy as np
import numpy.typing as npt
import structlog
from llama_cpp import llama_cpp as native

from models.contracts.errors import InputError, UnavailableError, UntrustedError
from models.vocabulary import Vocabulary

Tokens = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ

_log = structlog.get_logger()
_heard = threading.local()  # llama.cpp speaks on the thread that called it
_LINES = 8
_PIECE_BYTES = 1024
_DEBUG = 1  # GGML_LOG_LEVEL_DEBUG


@native.llama_log_callback  # type: ignore[untyped-decorator]
def _hear(level: int, text: bytes, _user_data: object) -> None:
    if level == _DEBUG:  # a hundred lines a context
        return
    line = text.decode("utf-8", "replace").strip()
    if line and line != ".":
        _said().append(line)
        _log.debug("llama_cpp", said=line)


native.llama_log_set(_hear, None)
native.llama_backend_init()


def system_features() -> str:
    """Return what the library was built with: `AMX_INT8` among it means that 4-bit models may crash."""
    return native.llama_print_system_info().decode()  # type: ignore[no-any-return]


class Model:
    """The weights and the vocabulary of one GGUF; every context on it shares them."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        """Load a file.

        Raises:
            UntrustedError: llama.cpp does not take it.
        """
        parameters = native.llama_model_default_params()
        parameters.n_gpu_layers = 0
        # Not mapped: a mapped file that somebody truncates kills the process with SIGBUS.
        parameters.load_mode = native.LLAMA_LOAD_MODE_NONE
        parameters.check_tensors = True
        parameters.vocab_only = vocabulary_only
        self.path = path
        self._vocabulary_only = vocabulary_only
        self._contexts: set[Context | Encoder] = set()
        _said().clear()
        self._handle = native.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._handle:
            raise UntrustedError(f"{path}: llama.cpp does not load it: {_last_words()}")
        self._tokeniser = Tokeniser(native.llama_model_get_vocab(self._handle), path)
        self.vocabulary = Vocabulary(self._tokeniser)

    def metadata(self, key: str) -> str | None:
        """Return a string of the GGUF's metadata."""
        size = native.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        native.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def architecture(self) -> str:
        return self.metadata("general.architecture") or ""

    @property
    def chat_template(self) -> str | None:
        return self.metadata("tokenizer.chat_template")

    @property
    def trained_context(self) -> int:
        return int(native.llama_model_n_ctx_train(self.handle))

    @property
    def pools_to_labels(self) -> bool:
        """Whether it has a classification head with named outputs, which is read through RANK pooling."""
        return bool(self.labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classification head's outputs.

        Raises:
            RuntimeError: the model was opened for its vocabulary, and llama.cpp has not read them.
        """
        if self._vocabulary_only:
            raise RuntimeError(f"{self.path}: its labels are asked for, and only its vocabulary was read")
        names = (native.llama_model_cls_label(self.handle, i) for i in range(native.llama_model_n_cls_out(self.handle)))
        return tuple(name.decode("utf-8", "replace") for name in names if name)

    @property
    def rolls_back(self) -> bool:
        """Whether the end of a sequence can be forgotten; a recurrent state cannot be."""
        handle = self.handle
        return not (native.llama_model_is_recurrent(handle) or native.llama_model_is_hybrid(handle))

    @property
    def decodes(self) -> bool:
        handle = self.handle
        return bool(native.llama_model_has_decoder(handle)) and not native.llama_model_has_encoder(handle)

    @property
    def handle(self) -> Any:
        if not self._handle:
            raise UnavailableError(f"{self.path}: the model is closed")
        return self._handle

    def must_be_open(self) -> None:
        """Check it before work on many threads.

        Raises:
            UnavailableError: it is closed.
        """
        _ = self.handle

    def adopt(self, context: "Context | Encoder") -> None:
        self._contexts.add(context)

    def disown(self, context: "Context | Encoder") -> None:
        self._contexts.discard(context)

    def close(self) -> None:
        """Free contexts, then weights: the other order is a segmentation fault."""
        for context in tuple(self._contexts):
            context.close()
        self._tokeniser.close()
        handle, self._handle = self._handle, None
        if handle:
            native.llama_model_free(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tokeniser:
    """The tokeniser of one GGUF, call by call; its model closes it. `Vocabulary` makes sense of it.

    Each call raises `UnavailableError` once it is closed: its memory is the model's, and gone.
    """

    def __init__(self, handle: Any, path: Path) -> None:
        self._handle, self._path = handle, path
        self._lock = threading.Lock()
        self.size: int = native.llama_vocab_n_tokens(handle)
        self.marks: Iterable[int] = range(self.size)
        self.start: int | None = _token_or_none(native.llama_vocab_bos(handle))
        self.end: int | None = _token_or_none(native.llama_vocab_eos(handle))
        self.adds_start = bool(native.llama_vocab_get_add_bos(handle))
        self.is_sentence_piece: bool = native.llama_vocab_type(handle) == native.LLAMA_VOCAB_TYPE_SPM

    def tokens(self, text: bytes, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        room = len(text) + 8
        buffer = np.empty(room, np.int32)
        address = ctypes.cast(buffer.ctypes.data, ctypes.POINTER(native.llama_token))
        count = self._ask(native.llama_tokenize, text, len(text), address, room, add_special, parse_special)
        if count < 0:
            raise InputError(f"{text[:40]!r}: the tokeniser wants {-count} tokens for {len(text)} bytes")
        tokens: list[int] = buffer[:count].tolist()
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; those of a control token only if `special`."""
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = self._ask(native.llama_token_to_piece, token, buffer, _PIECE_BYTES, 0, special)
        return buffer.raw[:size] if size > 0 else b""

    def spelling(self, token: int) -> str:
        """Return a token as the vocabulary writes it, control tokens too."""
        spelling: bytes = self._ask(native.llama_vocab_get_text, token)
        return spelling.decode("utf-8", "replace")

    def is_control(self, token: int) -> bool:
        return bool(self._ask(native.llama_vocab_get_attr, token) & native.LLAMA_TOKEN_ATTR_CONTROL)

    def is_user_defined(self, token: int) -> bool:
        return bool(self._ask(native.llama_vocab_get_attr, token) & native.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def is_byte(self, token: int) -> bool:
        return bool(self._ask(native.llama_vocab_get_attr, token) & native.LLAMA_TOKEN_ATTR_BYTE)

    def is_unknown(self, token: int) -> bool:
        return bool(self._ask(native.llama_vocab_get_attr, token) & native.LLAMA_TOKEN_ATTR_UNKNOWN)

    def close(self) -> None:
        with self._lock:
            self._handle = None

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:  # so that nothing is freed under a call
            if not self._handle:
                raise UnavailableError(f"{self._path}: the model is closed")
            return call(self._handle, *arguments)


class Batch:
    """Rows of tokens in numpy arrays that llama.cpp reads in place; a decode takes any stretch of them.

    The sequences of a row are consecutive numbers: `first` and `count`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.token = np.zeros(capacity, np.int32)
        self.position = np.zeros(capacity, np.int32)
        self.count = np.ones(capacity, np.int32)
        self.first = np.zeros(capacity, np.uint64)
        self.wanted = np.zeros(capacity, np.int8)
        self._numbers = np.arange(MAX_SEQUENCES, dtype=np.int32)
        self._addresses = np.zeros(capacity, np.uint64)
        kinds = dict(native.llama_batch._fields_)
        columns: dict[str, np.ndarray[Any, Any]] = {
            "token": self.token,
            "pos": self.position,
            "n_seq_id": self.count,
            "seq_id": self._addresses,
            "logits": self.wanted,
        }
        self._columns = [(name, kinds[name], array.ctypes.data, array.itemsize) for name, array in columns.items()]

    def stretch(self, begin: int, end: int) -> Any:
        """Return rows `begin` to `end` as the library's batch; it is valid until the arrays change."""
        self._addresses[begin:end] = self._numbers.ctypes.data + 4 * self.first[begin:end]
        batch = native.llama_batch()
        batch.n_tokens = end - begin
        for name, kind, address, itemsize in self._columns:
            setattr(batch, name, ctypes.cast(address + begin * itemsize, kind))
        return batch


Attention = Literal["flash", "plain"]


class Context:
    """A key-value cache and a thread of computation on a decoder; its sequences share one cache.

    Sequence 0 is the instruction's; `keep` decodes it once, and `forget` rolls the others back to it.
    """

    def __init__(self, model: Model, *, cells: int, rows: int, sequences: int, attention: Attention) -> None:
        """Open a context for at most `rows` tokens and outputs a decode.

        Raises:
            UntrustedError: the model cannot be run so.
        """
        if not 0 < sequences <= MAX_SEQUENCES:
            raise ValueError(f"{sequences} sequences; 1 to {MAX_SEQUENCES} wanted")
        parameters = native.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_seq_max = sequences
        parameters.n_outputs_max = rows
        # More threads a context collapse when a core is busy: they spin at a barrier.
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.kv_unified = True
        parameters.flash_attn_type = int(attention == "flash")
        parameters.no_perf = True
        self.model, self.cells, self.rows, self.sequences = model, cells, rows, sequences
        self.kept = 0
        self.decoded = 0  # tokens since it was opened
        self._lock = threading.Lock()
        _said().clear()
        self._handle = native.llama_init_from_model(model.handle, parameters)
        if not self._handle:
            raise UntrustedError(f"{model.path}: no context of {cells} cells on it: {_last_words()}")
        self._memory = native.llama_get_memory(self._handle)
        model.adopt(self)

    def keep(self, tokens: Sequence[int]) -> None:
        """Forget everything and decode the tokens that every sequence begins with."""
        with self._lock:
            native.llama_memory_clear(self._use(), False)
            batch = Batch(max(len(tokens), 1))
            batch.token[: len(tokens)] = tokens
            batch.position[:] = np.arange(batch.capacity)
            for begin in range(0, len(tokens), self.rows):
                self._decode(batch, begin, min(begin + self.rows, len(tokens)))
            for sequence in range(1, self.sequences):
                native.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
            self.kept = len(tokens)

    def forget(self, sequence: int, position: int | None = None) -> None:
        """Roll a sequence back to what is kept, or to a position behind that."""
        with self._lock:
            native.llama_memory_seq_rm(self._use(), sequence, self.kept if position is None else position, -1)

    def decode(self, batch: Batch, begin: int, end: int) -> Logits:
        """Decode rows and return the logits of the wanted ones, in order; they are valid until the next decode.

        Raises:
            UnavailableError: the rows do not fit now; the context is as it was but for them.
        """
        with self._lock:
            self._use()
            self._decode(batch, begin, end)
            wanted = int(np.count_nonzero(batch.wanted[begin:end]))
            if not wanted:
                return np.empty((0, self.model.vocabulary.size), np.float32)
            address = native.llama_get_logits(self._handle)
            if not address:
                raise UnavailableError(f"{self.model.path}: llama.cpp has no logits: {_last_words()}")
            return np.ctypeslib.as_array(address, shape=(wanted, self.model.vocabulary.size))

    def close(self) -> None:
        with self._lock:
            handle, self._handle = self._handle, None
            if handle:
                native.llama_free(handle)
            self.model.disown(self)

    def _use(self) -> Any:
        if not self._handle:
            raise UnavailableError(f"{self.model.path}: the context is closed")
        return self._memory

    def _decode(self, batch: Batch, begin: int, end: int) -> None:
        rows = end - begin
        # More than the context was opened for is not an error code but an abort.
        if not 0 < rows <= self.rows:
            raise ValueError(f"{rows} rows; 1 to {self.rows} wanted")
        _said().clear()
        code = native.llama_decode(self._handle, batch.stretch(begin, end))
        if code:
            reason = {1: "no room in the key-value cache", 2: "aborted", -1: "a bad batch"}.get(code, "failed")
            raise UnavailableError(f"{self.model.path}: decode of {rows} rows: {reason} ({code}): {_last_words()}")
        self.decoded += rows


class Encoder:
    """A thread of computation on a model that reads whole texts and answers with one number per label.

    Not `pooled` it answers with a vector per token.
    """

    def __init__(self, model: Model, *, rows: int, sequences: int, pooled: bool = True) -> None:
        """Open a context for texts of at most `rows` tokens together.

        Raises:
            UntrustedError: the model cannot be run so.
        """
        parameters = native.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.kv_unified = True
        parameters.embeddings = True
        parameters.pooling_type = native.LLAMA_POOLING_TYPE_RANK if pooled else native.LLAMA_POOLING_TYPE_NONE
        parameters.flash_attn_type = int(sequences > 1)
        parameters.no_perf = True
        self.model, self.rows, self.sequences = model, rows, sequences
        self.pooled = pooled
        count = native.llama_model_n_cls_out if pooled else native.llama_model_n_embd
        self.outputs = int(count(model.handle))
        self._lock = threading.Lock()
        self._batch = Batch(rows)
        _said().clear()
        self._handle = native.llama_init_from_model(model.handle, parameters)
        if not self._handle:
            raise UntrustedError(f"{model.path}: no context of {rows} tokens on it: {_last_words()}")
        model.adopt(self)

    def encode(self, texts: Sequence[Sequence[int]]) -> Logits:
        """Return the head's logits, one row per text; or a vector per token of all texts, in order.

        Raises:
            UnavailableError: the texts cannot be encoded now.
        """
        lengths = [len(text) for text in texts]
        rows = sum(lengths)
        # All of a batch is attended to at once, so it is one unit of work or an abort.
        if not 0 < rows <= self.rows or len(texts) > self.sequences:
            raise ValueError(f"{rows} tokens in {len(texts)} texts; at most {self.rows} in {self.sequences} wanted")
        with self._lock:
            if not self._handle:
                raise UnavailableError(f"{self.model.path}: the context is closed")
            batch = self._batch
            batch.token[:rows] = np.concatenate([np.asarray(text, np.int32) for text in texts])
            batch.position[:rows] = np.concatenate([np.arange(length) for length in lengths])
            batch.first[:rows] = np.repeat(np.arange(len(texts)), lengths)
            batch.wanted[:rows] = 1
            code = native.llama_encode(self._handle, batch.stretch(0, rows))
            if code:
                raise UnavailableError(f"{self.model.path}: encode of {rows} tokens failed ({code}): {_last_words()}")
            if self.pooled:
                return np.stack([self._output(sequence) for sequence in range(len(texts))])
            address = native.llama_get_embeddings(self._handle)
            if not address:
                raise UnavailableError(f"{self.model.path}: llama.cpp has no vectors: {_last_words()}")
            return np.ctypeslib.as_array(address, shape=(rows, self.outputs)).copy()

    def close(self) -> None:
        with self._lock:
            handle, self._handle = self._handle, None
            if handle:
                native.llama_free(handle)
            self.model.disown(self)

    def _output(self, sequence: int) -> Logits:
        address = native.llama_get_embeddings_seq(self._handle, sequence)
        if not address:
            raise UnavailableError(f"{self.model.path}: llama.cpp has no output for a text: {_last_words()}")
        return np.ctypeslib.as_array(address, shape=(self.outputs,)).copy()


def _token_or_none(token: int) -> int | None:
    return None if token < 0 else token


def _said() -> deque[str]:
    """Return the last lines that this thread was told."""
    if not hasattr(_heard, "lines"):
        _heard.lines = deque(maxlen=_LINES)
    lines: deque[str] = _heard.lines
    return lines


def _last_words() -> str:
    return " | ".join(_said()) or "it gave no reason"


def quantize_file(
    source: Path, target: Path, kind: str, *, embedding: str | None = None, output: str | None = None
) -> None:
    """Write a GGUF of 16-bit weights again in fewer bits; a failure may leave half a `target`.

    The types are named as llama.cpp does; `embedding` and `output` are those of the token embedding and the output
    layer, where they are to differ.

    Raises:
        InputError: llama.cpp does not do it.
    """
    parameters = native.llama_model_quantize_default_params()
    parameters.ftype = getattr(native, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = 1
    if embedding is not None:
        parameters.token_embedding_type = _tensor_type(embedding)
    if output is not None:
        parameters.output_tensor_type = _tensor_type(output)
    _said().clear()
    code = native.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if code:
        raise InputError(f"{source}: llama.cpp does not quantize it to {kind} ({code}): {_last_words()}")


def _tensor_type(kind: str) -> int:
    """Return the type of one tensor; a mixture is named after the type of most of them."""
    name = kind.removesuffix("_S").removesuffix("_M") if "_K" in kind else kind
    return int(getattr(native, f"GGML_TYPE_{name}"))
