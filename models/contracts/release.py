"""Model, prompt, calibration and first policy as one numbered unit; it lives in the GGUF's own metadata."""

from typing import Literal

from msgspec import Struct

from models.contracts.policy import Policy
from models.contracts.scalars import LabelName, Name, Number
from models.contracts.task import Task

METADATA_KEY = "headwater.release"
"""The one key of the GGUF's metadata; its value is the `Release` as JSON."""


WordingName = Literal["", "words-1", "words-2"]


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """softmax(log p / temperature + bias) over the labels; Guo et al. 2017 (temperature and vector scaling).

    Where a release asks for a second opinion, its log-probabilities count by their weight as well: a logarithmic
    opinion pool (Genest and Zidek 1986, Combining Probability Distributions).
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()  # one per label, or empty for none
    second_weight: float = 0.0  # of the second opinion's log-probabilities


class Prompt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands around the event.

    `chat` renders the model's own chat template. `plain` is the literal text before and after the event, for a model
    that was trained on just that. `encoder` has nothing around the event; with `wording` it reads the event's words
    (`models/wording.py`), and no more than `max_tokens` of them.
    """

    kind: Literal["chat", "plain", "encoder"] = "chat"
    before: str = ""
    after: str = ""
    wording: WordingName = ""
    max_tokens: Number = 512


class Roles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear layer over an encoder's token vectors: which field a stretch of the event belongs to.

    `weights` are 32-bit floats, little-endian: for every name a row as wide as the model, its bias last.
    """

    names: tuple[str, ...]  # `-` for none, then fields
    weights: bytes


class SecondOpinion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another release of the same labels, which reads every event as well."""

    release: str  # `<name>-<number>`
    sha256: str  # of its file: what was measured together stays together


class Golden(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event whose answer is known: the self-test of a release."""

    text: str
    label: LabelName
    confidence: float


class Release(Struct, frozen=True, kw_only=True, tag="release/1"):
    """Everything that was measured together and is shipped together."""

    name: Name
    number: Number
    task: Task
    prompt: Prompt = Prompt()
    calibration: Calibration = Calibration()
    policy: Policy = Policy()
    roles: Roles | None = None  # of an encoder that reads copied fields
    second_opinion: SecondOpinion | None = None  # an encoder may ask for one
    golden: tuple[Golden, ...] = ()
    provenance: dict[str, str] = {}  # data digest, licences, seeds, figures

    @property
    def title(self) -> str:
        """The name that verdicts carry."""
        return f"{self.name}-{self.number}"
