"""What is asked of the model: labels with descriptions, fields, instruction, the default label."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.contracts.scalars import FactName, LabelName, Name, Number


class Label(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the answers. The name is what the model writes; the description is what it is told."""

    name: LabelName
    description: str


class Field(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something to read off an event.

    A `copied` value must occur in the event's text; a `choice` is one of `choices`.
    """

    name: Name
    description: str
    kind: Literal["copied", "choice"] = "copied"
    choices: tuple[str, ...] = ()
    max_values: Number = 1


class Task(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="task/1"):
    """A question put to every event of a stream."""

    name: Name
    instruction: str
    labels: Annotated[tuple[Label, ...], Meta(min_length=2, max_length=256)]
    default_label: LabelName  # what an event gets that nothing is sure of
    fields: tuple[Field, ...] = ()
    fields_for: tuple[LabelName, ...] = ()  # only events with these labels have fields read off
    context: tuple[FactName, ...] = ()  # what a model is shown of an event's context, in front of the event

    def __post_init__(self) -> None:
        names = self.label_names
        if len(set(names)) != len(names):
            raise ValueError(f"task {self.name}: a label name occurs twice in {list(names)}")
        for wanted in (self.default_label, *self.fields_for):
            if wanted not in names:
                raise ValueError(f"task {self.name}: `{wanted}` is none of its labels {list(names)}")
        for field in self.fields:
            if (field.kind == "choice") != bool(field.choices):
                raise ValueError(
                    f"task {self.name}: field `{field.name}`: `choices` go with kind `choice`, and only with it"
                )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names, in the order in which every opinion lists its probabilities."""
        return tuple(label.name for label in self.labels)
