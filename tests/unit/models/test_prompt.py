"""What stands around an event, and which prompts cannot be used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.contracts.errors import UntrustedError
from models.contracts.release import Prompt
from models.llama import Model
from models.prompt import chat_text, frame
from models.vocabulary import Vocabulary
from tests.fakes.tiny_models import CHAT_TEMPLATE, TASK

RECURSIVE = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"


@pytest.fixture(scope="module")
def vocabulary(instruct_file: Path) -> Iterator[Vocabulary]:
    with Model(instruct_file, vocabulary_only=True) as model:
        yield model.vocabulary


@pytest.mark.parametrize("after", ["", " "])
def test_a_prompt_with_nothing_behind_the_event_is_refused_with_what_is_wanted(
    vocabulary: Vocabulary, after: str
) -> None:
    with pytest.raises(UntrustedError, match=r"plain prompt has nothing behind the event but '.?', and something"):
        frame(Prompt(kind="plain", before="Event:", after=after), TASK, vocabulary, None)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        (RECURSIVE, "RecursionError"),
        ("{{ 9.0 ** 999 }}", "OverflowError"),
        ("{{ messages[7].content.x }}", "UndefinedError"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages[-1].content.upper() }}", "the event or the instruction is not in"),
    ],
)
def test_a_chat_template_that_fails_is_untrusted_with_its_reason(template: str, reason: str) -> None:
    with pytest.raises(UntrustedError, match=f"chat template cannot be used: .*{reason}"):
        chat_text(TASK, template, "", "")


def test_only_a_prompt_without_marks_folds_the_lines_of_an_event(vocabulary: Vocabulary) -> None:
    plain = frame(Prompt(kind="plain", before="Event:", after="\nLabel:"), TASK, vocabulary, None)
    chat = frame(Prompt(kind="chat"), TASK, vocabulary, CHAT_TEMPLATE)

    assert (plain.folds_lines, chat.folds_lines) == (True, False)
