"""The chat templates of real models, as they lie in llama.cpp's source."""

from pathlib import Path

import pytest

from models.contracts.errors import UntrustedError
from models.prompt import chat_text
from tests.fakes.tiny_models import TASK

# It calls functions and does nothing else.
REFUSED = {"fireworks-ai-llama-3-firefunction-v2": "'functions' is undefined"}


def test_every_template_puts_the_instruction_before_the_event_and_the_answer_after(llama_source: Path) -> None:
    folder = llama_source / "vendor" / "llama.cpp" / "models" / "templates"
    refused = {}
    for path in sorted(folder.glob("*.jinja")):
        try:
            before, after = chat_text(TASK, path.read_text(encoding="utf-8"), "<s>", "</s>")
        except UntrustedError as error:
            refused[path.stem] = str(error)
            continue
        assert TASK.instruction in before, path.stem
        assert before.endswith("Event: "), path.stem
        assert after, path.stem
        assert not after.rstrip().endswith("<think>"), path.stem

    assert refused.keys() == REFUSED.keys()
    assert all(reason in refused[name] for name, reason in REFUSED.items())


def test_a_template_that_refuses_a_system_message_gets_it_in_the_user_s() -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}!"
    )

    before, after = chat_text(TASK, template, "", "")

    assert TASK.instruction in before
    assert after == "!"


def test_a_template_that_drops_a_system_message_gets_it_in_the_user_s() -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}>"

    assert TASK.instruction in chat_text(TASK, template, "", "")[0]


@pytest.mark.parametrize("template", ["{{ nothing.here.at_all }}", "{% if %}", "no event", "", None])
def test_a_template_that_cannot_be_used_is_refused_with_the_reason(template: str | None) -> None:
    with pytest.raises(UntrustedError, match="chat template"):
        chat_text(TASK, template, "", "")


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    with pytest.raises(UntrustedError, match="unsafe"):
        chat_text(TASK, "{{ messages.__class__.__base__.__subclasses__() }}", "", "")
