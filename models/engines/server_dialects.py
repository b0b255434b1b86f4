"""What vLLM's server and llama.cpp's are asked, and what their answers mean: bodies and replies, no network. Pure.

Both take a prompt as tokens, so nothing in an event is parsed as a mark, and both tell how a text is tokenised, so
nobody here needs the model's tokeniser. They differ in how the labels' probabilities are asked for:

* vLLM answers for exactly the tokens that it is asked about (`logprob_token_ids`).
* llama-server answers with the most probable tokens, and with the token that it chose, which is made to be the most
  probable label (`logit_bias`, which moves the choice and not the probabilities told). A label that is not among them
  gets the highest probability that it can have: that of the least probable token told, or what those told leave over
  if that is less. So the label that leads is believed too little rather than too much.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.wire import NOT_DECODED
from models.engines.hugging_face import HuggingFaceTokeniser
from models.labels import Float64s
from models.vocabulary import RawTokeniser

S = TypeVar("S")

_TOLD: Final = 512
"""So many tokens llama-server is asked about; a model that knows its labels has them among the first few."""

_MOST_ANSWERS: Final = 128  # vLLM's MAX_LOGPROB_TOKEN_IDS
_SURE: Final = 1.001  # what probabilities sum to at most, rounded as they are
_PREFERRED: Final = 100.0  # no logit is as large
_NUMBERED: Final = "token_id:{}".format


_Token = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Byte = Annotated[int, Meta(ge=0, lt=1 << 8)]


class Request(Struct, frozen=True):
    """Something to be posted: JSON."""

    path: str
    body: bytes


def request(path: str, **body: object) -> Request:
    return Request(path, msgspec.json.encode(body))


Ask = Callable[[Request], bytes]
"""From a request to its reply."""


class Served(Struct, frozen=True):
    """A model as a server lists it."""

    id: str
    owned_by: str = ""
    max_model_len: int = 0


class Dialect(Protocol):
    """How one kind of server is spoken to."""

    most_answers: int | None  # of one question
    context_tokens: int
    chat_template: str | None

    def tokeniser(self, ask: Ask) -> RawTokeniser: ...
    def labels(self, prompt: Sequence[int], answers: Sequence[int]) -> Request: ...
    def read_labels(self, reply: bytes, answers: Sequence[int]) -> Float64s:
        """Return the log-probability of each answer.

        Raises:
            UntrustedError: the reply is none.
        """

    def text(self, prompt: Sequence[int], grammar: str, most_tokens: int) -> Request: ...
    def read_text(self, reply: bytes) -> str:
        """Return what was written.

        Raises:
            UntrustedError: the reply is none.
        """


class _Models(Struct, frozen=True):
    data: list[Served]


class _Choice(Struct, frozen=True):
    text: str = ""
    logprobs: Any = None


class _Completion(Struct, frozen=True):
    choices: list[_Choice]
    model: str = ""


class _Tokens(Struct, frozen=True):
    tokens: list[_Token]
    token_strs: list[str]


class _VllmAbout(Struct, frozen=True):
    added_tokens_decoder: dict[_Token, str]
    bos_token: str | None = None
    eos_token: str | None = None
    chat_template: Any = None


class _VllmLogprobs(Struct, frozen=True):
    top_logprobs: list[dict[str, float]]


class _LlamaToken(Struct, frozen=True):
    id: _Token
    piece: str | list[_Byte] = ""


class _LlamaTokens(Struct, frozen=True):
    tokens: list[_LlamaToken]


class _LlamaSettings(Struct, frozen=True):
    n_ctx: int


class _LlamaAbout(Struct, frozen=True):
    default_generation_settings: _LlamaSettings
    bos_token: str = ""
    eos_token: str = ""
    chat_template: str = ""


class _Told(Struct, frozen=True):
    id: int
    logprob: float


class _Answer(Struct, frozen=True):
    id: int
    logprob: float
    top_logprobs: list[_Told]


class _LlamaLogprobs(Struct, frozen=True):
    content: list[_Answer]


class VllmDialect:
    """vLLM's own server, started with `--enable-tokenizer-info-endpoint`."""

    most_answers: int | None = _MOST_ANSWERS
    about_path: Final = "/tokenizer_info"

    def __init__(self, model: Served, about: bytes) -> None:
        told = _read(about, _VllmAbout, "tokeniser's description")
        self._model, self._told = model.id, told
        self.context_tokens = model.max_model_len
        self.chat_template = told.chat_template if isinstance(told.chat_template, str) else None

    def tokeniser(self, ask: Ask) -> RawTokeniser:
        def tokenise(text: str, *, add_special: bool, parse_special: bool) -> tuple[list[int], list[str]]:  # noqa: ARG001 # vLLM always parses
            wanted = request(
                "/tokenize", model=self._model, prompt=text, add_special_tokens=add_special, return_token_strs=True
            )
            tokens = _read(ask(wanted), _Tokens, "tokens")
            if len(tokens.tokens) != len(tokens.token_strs):
                raise UntrustedError(f"{len(tokens.tokens)} tokens written in {len(tokens.token_strs)} ways")
            return tokens.tokens, tokens.token_strs

        told = self._told
        return HuggingFaceTokeniser(tokenise, told.added_tokens_decoder, told.bos_token or "", told.eos_token or "")

    def labels(self, prompt: Sequence[int], answers: Sequence[int]) -> Request:
        return self._complete(
            prompt, max_tokens=1, logprobs=1, logprob_token_ids=list(answers), return_tokens_as_token_ids=True
        )

    def read_labels(self, reply: bytes, answers: Sequence[int]) -> Float64s:
        told = _logprobs(reply, self._model, _VllmLogprobs).top_logprobs
        found = told[0] if told else {}
        missing = [answer for answer in answers if _NUMBERED(answer) not in found]
        if missing:
            raise UntrustedError(f"the server says nothing of tokens {missing[:5]}, which it was asked about")
        return _checked([found[_NUMBERED(answer)] for answer in answers])

    def text(self, prompt: Sequence[int], grammar: str, most_tokens: int) -> Request:
        return self._complete(prompt, max_tokens=most_tokens, structured_outputs={"grammar": grammar})

    def read_text(self, reply: bytes) -> str:
        return _choice(reply, self._model).text

    def _complete(self, prompt: Sequence[int], **more: object) -> Request:
        return request("/v1/completions", model=self._model, prompt=list(prompt), temperature=0, **more)


class LlamaDialect:
    """llama.cpp's own server."""

    most_answers: int | None = None
    about_path: Final = "/props"

    def __init__(self, model: Served, about: bytes) -> None:
        self._model = model.id
        self._told = _read(about, _LlamaAbout, "properties")
        self.context_tokens = self._told.default_generation_settings.n_ctx
        self.chat_template = self._told.chat_template or None

    def tokeniser(self, ask: Ask) -> RawTokeniser:
        return _LlamaTokeniser(ask, self._told)

    def labels(self, prompt: Sequence[int], answers: Sequence[int]) -> Request:
        # A token that is no label may be the first byte of a letter, and of those llama-server tells nothing.
        preferred = [(answer, _PREFERRED) for answer in answers]
        return self._complete(prompt, max_tokens=1, logprobs=max(_TOLD, len(answers)), logit_bias=preferred)

    def read_labels(self, reply: bytes, answers: Sequence[int]) -> Float64s:
        content = _logprobs(reply, self._model, _LlamaLogprobs).content
        if len(content) != 1 or content[0].id not in answers:
            raise UntrustedError("the server did not choose one of the tokens that it was asked about")
        told = {token.id: token.logprob for token in content[0].top_logprobs} | {content[0].id: content[0].logprob}
        _checked(list(told.values()))
        left = math.log(max(1 - sum(map(math.exp, told.values())), 1e-300))
        bound = min(left, *told.values())
        return np.array([told.get(answer, bound) for answer in answers])

    def text(self, prompt: Sequence[int], grammar: str, most_tokens: int) -> Request:
        return self._complete(prompt, max_tokens=most_tokens, grammar=grammar)

    def read_text(self, reply: bytes) -> str:
        return _choice(reply, self._model).text

    def _complete(self, prompt: Sequence[int], **more: object) -> Request:
        return request(
            "/v1/completions", model=self._model, prompt=list(prompt), temperature=0, cache_prompt=True, **more
        )


class _LlamaTokeniser:
    """llama.cpp's tokeniser, asked over the network; it leaves control tokens in a text alone.

    Which tokens its vocabulary defines besides, such as `[PAD7]`, nobody says: those it finds in plain text, too.
    """

    is_sentence_piece = True  # or may be: whether it puts a space in front is looked at

    def __init__(self, ask: Ask, about: _LlamaAbout) -> None:
        self._ask = ask
        self._spelled: dict[int, bytes] = {}
        self.marks: Iterable[int] = ()
        self.start, self.end = (self._number(text) for text in (about.bos_token, about.eos_token))
        self.adds_start = self.start is not None and self.tokens(b"a", add_special=True)[0] == self.start

    def tokens(self, text: bytes, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        content = text.decode("utf-8", "replace")
        wanted = request(
            "/tokenize", content=content, add_special=add_special, parse_special=parse_special, with_pieces=True
        )
        tokens = _read(self._ask(wanted), _LlamaTokens, "tokens").tokens
        for token in tokens:
            self._spelled[token.id] = token.piece.encode() if isinstance(token.piece, str) else bytes(token.piece)
        return [token.id for token in tokens]

    def piece(self, token: int, *, special: bool = False) -> bytes:  # noqa: ARG002 # a server tells the one spelling
        return self._spelled[token]

    def spelling(self, token: int) -> str:
        return self._spelled[token].decode("utf-8", "replace")

    def is_control(self, token: int) -> bool:  # noqa: ARG002 # it has made none of a text
        return False

    def is_user_defined(self, token: int) -> bool:  # noqa: ARG002 # nobody says
        return False

    def is_byte(self, token: int) -> bool:  # noqa: ARG002 # nobody asks
        return False

    def is_unknown(self, token: int) -> bool:  # noqa: ARG002 # nobody asks
        return False

    def _number(self, mark: str) -> int | None:
        numbers = self.tokens(mark.encode(), parse_special=True) if mark else []
        return numbers[0] if len(numbers) == 1 else None


DIALECTS: Final[dict[str, type[VllmDialect] | type[LlamaDialect]]] = {"vllm": VllmDialect, "llamacpp": LlamaDialect}
"""By what the server says it is, in the list of its models."""


def served(reply: bytes, wanted: str, where: str) -> Served:
    """Return the model that is wanted, or the only one there is, from the server's list.

    Raises:
        UntrustedError: this is no list of models, or of a server that is not known.
        ConfigError: the model is not there, or there are several.
    """
    models = _read(reply, _Models, "list of models").data
    names = [model.id for model in models]
    found = [model for model in models if model.id == wanted or not wanted]
    if len(found) != 1:
        what = f"there is no model `{wanted}`" if wanted else "there is not one model"
        raise ConfigError(f"{where}: {what} but {names}; set `model` to one of them")
    if found[0].owned_by not in DIALECTS:
        raise UntrustedError(
            f"{where}: is a server of `{found[0].owned_by}`, and only those of {list(DIALECTS)} tell how a text is "
            "tokenised, without which an event could pass for an instruction; refused it"
        )
    return found[0]


def _choice(reply: bytes, model: str) -> _Choice:
    completion = _read(reply, _Completion, "completion")
    if completion.model not in ("", model):  # it came back as another, and nobody was there to notice
        raise UntrustedError(f"the server's completion is of `{completion.model}`, `{model}` was asked")
    if len(completion.choices) != 1:
        raise UntrustedError(f"the server's completion has {len(completion.choices)} choices, one wanted")
    return completion.choices[0]


def _logprobs(reply: bytes, model: str, kind: type[S]) -> S:
    try:
        return msgspec.convert(_choice(reply, model).logprobs, kind)
    except msgspec.ValidationError as error:
        raise UntrustedError(f"the server's log-probabilities: {error}") from error


def _read(reply: bytes, kind: type[S], what: str) -> S:
    try:
        return msgspec.json.decode(reply, type=kind)
    except NOT_DECODED as error:
        raise UntrustedError(f"the server's {what}: {error}") from error


def _checked(logs: Sequence[float]) -> Float64s:
    """Return logarithms of probabilities that may be those of different tokens."""
    found = np.array(logs, np.float64)
    if not np.isfinite(found).all() or np.exp(found).sum() > _SURE:
        raise UntrustedError(f"the server's log-probabilities are none: {found[:5].tolist()}")
    return found
