"""A release's task as a decoder is asked it: the tokens around an event, the labels' tree, and what the answers say.

It is the same for every runtime. An event that is too long is cut; what was cut away can be no value of a field.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from models.calibration import calibrate
from models.contracts.errors import ConfigError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.ends import ends_of_text, ends_of_tokens
from models.fields import occurs
from models.labels import Float64s, LabelTree
from models.prompt import frame
from models.vocabulary import TextEncoder
from models.window import Int32s

ANSWER_TOKENS = 192
"""Room behind an event for fields, or for a stretch of its neighbours."""

_EVENT_TOKENS = 64  # an instruction that leaves an event less is refused
_BYTES_PER_TOKEN = 16  # a text of more bytes than this for each token it may have is cut before it is tokenised
_JOINT = " "  # between the ends of a text that was cut
_FOLDED = str.maketrans("\r\n", "  ")

Fields = tuple[dict[str, tuple[str, ...]], int]  # values by field, and how many were dropped
NO_FIELDS: Fields = ({}, 0)


class Suffix(Struct, frozen=True):
    """What is decoded behind the instruction for one text."""

    tokens: Int32s
    body: str  # the text as the model reads it, but that a line end stands where it was cut
    truncated: bool

    @property
    def key(self) -> bytes:
        """Two texts with one key are the same to the model."""
        return self.tokens.tobytes()


class DecoderTask:
    """One release's task in one model's vocabulary."""

    def __init__(
        self,
        release: Release,
        vocabulary: TextEncoder,
        chat_template: str | None,
        *,
        cells: int,
        where: str,
        most: int | None = None,
    ) -> None:
        """Frame the instruction; `cells` is the context's size, and no question has more than `most` answers.

        Raises:
            UntrustedError: the model cannot express the labels.
            ConfigError: the instruction does not fit the context.
        """
        self.release = release
        task = release.task
        self._vocabulary = vocabulary
        self._frame = frame(release.prompt, task, vocabulary, chat_template)
        self.before = self._frame.before
        self._joint = vocabulary.encode(_JOINT)
        spellings = [[vocabulary.encode(lead + name) for lead in self._frame.answer_leads] for name in task.label_names]
        self.labels = LabelTree(task.label_names, spellings, most=most)
        self.label_tokens = [tuple(ways[0]) for ways in spellings]
        self.reads_fields = bool(task.fields and task.fields_for)
        self._event_tokens = cells - len(self.before) - len(self._frame.after) - ANSWER_TOKENS
        if self._event_tokens < _EVENT_TOKENS:
            raise ConfigError(
                f"{where}: of {cells} tokens of context the instruction takes {len(self.before)} and the "
                f"answer {ANSWER_TOKENS}, which leaves an event {max(self._event_tokens, 0)}; raise `context_tokens` "
                f"by {_EVENT_TOKENS - self._event_tokens} or shorten the instruction"
            )

    def suffix(self, text: str) -> Suffix:
        """Tokenise a text; of one that is too long both ends stay."""
        vocabulary, limit = self._vocabulary, self._event_tokens
        lead = self._frame.lead
        body = text.translate(_FOLDED) if self._frame.folds_lines else text
        ends = ends_of_text(body, limit * _BYTES_PER_TOKEN)
        tokens = vocabulary.encode(lead + _JOINT.join(ends))
        if len(ends) == 1 and len(tokens) <= limit:
            return Suffix(self._array(tokens), body, False)
        pieces = vocabulary.pieces_of(tokens)
        token_ends = ends_of_tokens(tokens, limit - len(self._joint), pieces)
        if len(token_ends) > 1:
            ends = [b"".join(pieces[token] for token in end).decode("utf-8", "replace") for end in token_ends]
            tokens = [*token_ends[0], *self._joint, *token_ends[1]]
        return Suffix(self._array(tokens), "\n".join(ends), True)

    def label_of(self, log_probabilities: Float64s) -> int:
        """Return the number of the most probable label, calibrated; of equals the first."""
        probabilities = calibrate(log_probabilities, self.release.calibration)
        return max(range(len(probabilities)), key=probabilities.__getitem__)

    def has_fields(self, label: int) -> bool:
        """Whether fields are read off an event with this label."""
        return self.reads_fields and self.release.task.label_names[label] in self.release.task.fields_for

    def opinion(self, suffix: Suffix, log_probabilities: Float64s, fields: Fields = NO_FIELDS) -> Opinion:
        """Return what the raw probabilities of the labels, and the fields, say about a text as the model reads it."""
        return Opinion(
            probabilities=calibrate(log_probabilities, self.release.calibration),
            label_mass=min(1.0, float(np.exp(log_probabilities).sum())),
            fields=fields[0],
            truncated=suffix.truncated,
            ungrounded=fields[1],
        )

    def grounded(self, opinion: Opinion, suffix: Suffix, text: str) -> Opinion:
        """Drop values that stand only in the text as the model reads it, cut or folded, and not as it came."""
        if suffix.body == text:
            return msgspec.structs.replace(opinion, truncated=suffix.truncated)
        choices = {field.name: field.choices for field in self.release.task.fields}
        kept = {
            name: tuple(value for value in values if value in choices[name] or occurs(value, text))
            for name, values in opinion.fields.items()
        }
        dropped = sum(map(len, opinion.fields.values())) - sum(map(len, kept.values()))
        return msgspec.structs.replace(
            opinion,
            fields={name: values for name, values in kept.items() if values},
            ungrounded=opinion.ungrounded + dropped,
            truncated=suffix.truncated,
        )

    def _array(self, tokens: Sequence[int]) -> Int32s:
        return np.array([*tokens, *self._frame.after], np.int32)
