"""A task that contradicts itself is refused where it is read, with the name of what is wrong."""

import pytest

from models.contracts.errors import ConfigError
from models.contracts.task import Field, Label, Task
from models.contracts.wire import decode_toml

LABELS = (Label("benign", "routine"), Label("critical", "an attack that succeeded"))


def test_label_names_are_in_the_order_of_the_labels() -> None:
    assert Task(name="t", instruction="", labels=LABELS, default_label="benign").label_names == ("benign", "critical")


def test_a_label_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="task t: a label name occurs twice"):
        Task(name="t", instruction="", labels=(LABELS[0], LABELS[0]), default_label="benign")


@pytest.mark.parametrize(
    "named", [{"default_label": "harmless"}, {"default_label": LABELS[0].name, "fields_for": ("harmless",)}]
)
def test_a_named_label_that_does_not_exist_is_refused(named: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="task t: `harmless` is none of its labels"):
        Task(name="t", instruction="", labels=LABELS, **named)


@pytest.mark.parametrize(
    "field",
    [
        Field(name="source", description="", choices=("a",)),
        Field(name="source", description="", kind="choice"),
    ],
)
def test_choices_go_with_the_kind_choice_and_only_with_it(field: Field) -> None:
    with pytest.raises(ValueError, match="field `source`: `choices` go with kind `choice`"):
        Task(name="t", instruction="", labels=LABELS, default_label="benign", fields=(field,))


def test_a_contradiction_in_a_task_file_is_a_configuration_error_with_the_files_name() -> None:
    labels = "".join(f'[[labels]]\nname = "{label.name}"\ndescription = ""\n' for label in LABELS)

    with pytest.raises(ConfigError, match=r"^task\.toml: task t: `harmless` is none of its labels"):
        decode_toml(f'name = "t"\ninstruction = ""\ndefault_label = "harmless"\n{labels}', Task, "task.toml")


def test_one_label_is_no_question() -> None:
    only = '[[labels]]\nname = "a"\ndescription = ""'

    with pytest.raises(ConfigError, match=r"length >= 2 - at `\$\.labels`"):
        decode_toml(f'name = "t"\ninstruction = ""\ndefault_label = "a"\n{only}', Task, "task.toml")


@pytest.mark.parametrize("fact", ["os", "9lives", "asset zone", "zone]"])
def test_a_fact_that_would_not_read_as_a_word_of_its_own_is_refused(fact: str) -> None:
    labels = "".join(f'[[labels]]\nname = "{label.name}"\ndescription = ""\n' for label in LABELS)
    text = f'name = "t"\ninstruction = ""\ndefault_label = "benign"\ncontext = ["{fact}"]\n{labels}'

    with pytest.raises(ConfigError, match=r"matching regex .* - at `\$\.context\[0\]`"):
        decode_toml(text, Task, "task.toml")
