"""A task and a model's way of talking to the tokens around an event.

The cut between prompt and event lies before the space: `…Event:` and ` sshd: …` apart are the same tokens as together,
`…Event: ` and `sshd: …` are not.
"""

import datetime as dt
import json
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from msgspec import Struct

from models.contracts.errors import UntrustedError
from models.contracts.release import Prompt
from models.contracts.task import Task
from models.fields import ABSENT, SEPARATOR
from models.vocabulary import TextEncoder

_EVENT = "<<the event stands here>>"
# What running a stranger's template may raise: RuntimeError is a recursion's, ArithmeticError a division's.
_TEMPLATE_FAULTS = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError, MemoryError,
)  # fmt: skip
# What a template writes about today: an opinion must not depend on the calendar.
_TODAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Frame(Struct, frozen=True, kw_only=True):
    """The tokens around an event: `before`, then the event behind `lead`, then `after`, then the answer."""

    before: tuple[int, ...]
    lead: str
    after: tuple[int, ...]
    answer_leads: tuple[str, ...]  # what may stand between the prompt and a label
    folds_lines: bool  # nothing but a line end parts the event from what is around it, so it may hold none


def frame(prompt: Prompt, task: Task, vocabulary: TextEncoder, chat_template: str | None) -> Frame:
    """Return the tokens around an event.

    Raises:
        UntrustedError: the model has no chat template, or one that cannot be used; or nothing parts event and answer.
    """
    if prompt.kind == "chat":
        before, after = chat_text(task, chat_template, vocabulary.start_text, vocabulary.end_text)
        encode_after = vocabulary.encode_mark
        # Whether a space belongs before the first word of an answer, vocabularies do not agree; both count.
        leads: tuple[str, ...] = ("", " ")
    else:
        before, after = prompt.before, prompt.after.removesuffix(" ")
        encode_after = vocabulary.encode
        leads = (" ",)
    kept = before.removesuffix(" ")
    behind = tuple(encode_after(after))
    if not behind:
        raise UntrustedError(
            f"the {prompt.kind} prompt has nothing behind the event but {after!r}, and something is wanted there: "
            "an empty event would be no token at all; refused it"
        )
    return Frame(
        before=tuple(vocabulary.encode_prompt(kept)),
        lead=before[len(kept) :],
        after=behind,
        answer_leads=leads,
        folds_lines=prompt.kind != "chat",
    )


def chat_text(task: Task, template: str | None, start: str, end: str) -> tuple[str, str]:
    """Render a model's chat template around an event; return the text before and after it.

    Raises:
        UntrustedError: there is no template, or it does not render, or it loses the event.
    """
    if not template:
        raise UntrustedError("the model has no chat template: it is no instruct model, or was converted without one")
    system, user = _instruction(task), f"Event: {_EVENT}"
    separate = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    folded = [{"role": "user", "content": f"{system}\n\n{user}"}]
    reasons = []
    for messages in (separate, folded):
        try:
            text = _render(template, messages, start, end)
        except _TEMPLATE_FAULTS as error:
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        # Some templates drop a system message and say nothing.
        if text.count(_EVENT) == 1 and task.instruction.strip() in text:
            before, after = text.split(_EVENT)
            return before, _ready_to_answer(after)
        reasons.append("the event or the instruction is not in what it renders")
    raise UntrustedError(f"the model's chat template cannot be used: {'; '.join(reasons)}")


def _instruction(task: Task) -> str:
    lines = [task.instruction.strip(), "", "Labels:"]
    lines += [f"{label.name}: {label.description}" for label in task.labels]
    lines += ["", "Answer with the label and nothing else."]
    if task.fields and task.fields_for:
        labels = " or ".join(f"`{name}`" for name in task.fields_for)
        lines += [f"After {labels} go on with one line per field, each as `name: value`, in this order:"]
        for field in task.fields:
            many = f"; up to {field.max_values}, parted by `{SEPARATOR}`" if field.max_values > 1 else ""
            only = f"; one of {', '.join(field.choices)}" if field.choices else "; copied from the event"
            lines += [f"{field.name}: {field.description}{only}{many}"]
        lines += [f"Where the event does not say, the value is `{ABSENT}`."]
    return "\n".join(lines)


def _ready_to_answer(after: str) -> str:
    """Close what a reasoning model's template opened, so that the next token is the answer's."""
    if after.rstrip().endswith("<think>"):
        return f"{after.rstrip()}\n\n</think>\n\n"
    if after.endswith("<|start|>assistant"):  # the harmony format names a channel before it speaks
        return f"{after}<|channel|>final<|message|>"
    return after


def _render(template: str, messages: list[dict[str, str]], start: str, end: str) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_refuse, strftime_now=_TODAY.strftime)
    return environment.from_string(template).render(
        messages=messages,
        add_generation_prompt=True,
        bos_token=start,
        eos_token=end,
        enable_thinking=False,
        thinking=False,
    )


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what a model is trained on; here it is only what stands in it."""

    tags = {"generation"}  # noqa: RUF012 # as jinja2 declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node | list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    """Write JSON as chat templates expect it; jinja2's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(reason: str) -> NoReturn:
    raise jinja2.TemplateError(reason)
