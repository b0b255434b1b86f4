"""The stream is real lines again and again: what the cache masks is new every time, and nothing else."""

import re
from random import Random

import pytest
from msgspec.structs import replace

from bench.cache.first_pass import hit_rates
from bench.cache.fresh import fresh, line_of
from bench.cache.steps import Remembering
from bench.cache.stream import Stream
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Prompt
from models.header import Header, split
from models.masking import Masking
from quantize.events import body_of
from tests.fakes.classifier import BENIGN, CRITICAL, DOUBTFUL, ScriptedClassifier
from tests.fakes.tiny_models import RELEASE

MASKING = Masking()


def other(text: str) -> str:
    """The same line with fresh values; different for all practical purposes."""
    return fresh(line_of(text, MASKING), MASKING, Random(7))


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("from 203.0.113.9 here", r"from \d{1,3}(\.\d{1,3}){3} here"),
        ("from 10.20.30.40 here", r"from 10\.20\.\d{1,3}\.\d{1,3} here"),
        ("from 172.16.30.40 here", r"from 172\.16\.\d{1,3}\.\d{1,3} here"),
        ("on 127.0.0.53 here", r"on 127\.0\.\d{1,3}\.\d{1,3} here"),
        ("from 203.0.113.9:51000 here", r"from \d{1,3}(\.\d{1,3}){3}:\d{5} here"),
        ("from fe80::92:bfff:fe2d:1 here", "from fe80::[0-9a-f]{2}:[0-9a-f]{4}:[0-9a-f]{4}:[0-9a-f] here"),
        ("from 203.0.113.9 port 51000 here", r"from \d{1,3}(\.\d{1,3}){3} port \d{5} here"),
        ("at 2026-01-31T23:59:59.123+02:00 here", r"at 2026-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+02:00 here"),
        ("at 31/Jan/2026:23:59:59 here", r"at \d\d/[A-Z][a-z]{2}/2026:\d\d:\d\d:\d\d here"),
        ("at Sat Jul  9 22:53:22 2005 now", r"at [A-Z][a-z]{2} [A-Z][a-z]{2}  \d \d\d:\d\d:\d\d 2005 now"),
        ("at 1735689600.123456 here", r"at 17\d{8}\.\d{6} here"),
        ("at 1735689600000 here", r"at 17\d{11} here"),
        ("id 9f86d081884c7d65 here", "id [0-9a-f]{16} here"),
        ("id 9F86D081884C7D65 here", "id [0-9A-F]{16} here"),
        ("id 0x7f961cf08cf0 here", "id 0x[0-9a-f]{12} here"),
        ("id 131FE7ED-87F7-471D-8797-C11107688DF7 here", "id [0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12} here"),
        ("bssid 5c:50:36:4c:18:13 here", "bssid [0-9a-f]{2}(:[0-9a-f]{2}){5} here"),
        ("child 6725 here", r"child \d{4} here"),
        ("number 123456 here", r"number [1-9]\d{5} here"),
        ("took 12.345678 here", r"took \d\d\.\d{6} here"),
        ("took 345ms here", r"took [1-9]\d\dms here"),
        ("took 345 ms here", r"took [1-9]\d\d ms here"),
    ],
)
def test_a_masked_word_becomes_another_of_its_form_and_the_key_stays(line: str, form: str) -> None:
    changed = other(line)

    assert changed != line
    assert re.fullmatch(form, changed)
    before, after = MASKING.mask(line), MASKING.mask(changed)
    assert before is not None
    assert after is not None
    assert before.key == after.key


@pytest.mark.parametrize("line", ["user root logged in, status=401", "on ::1 here", "one \x02 two 123456"])
def test_a_line_in_which_nothing_can_be_another_stays(line: str) -> None:
    assert other(line) == line


@pytest.mark.parametrize(
    ("line", "form"),
    [
        (
            "<14>Dec 10 06:55:46 203.0.113.1 sshd[24200]: user root",
            r"<14>Dec 10 \d\d:\d\d:\d\d 203\.0\.113\.1 sshd\[24200\]: user root",
        ),
        (
            "<14>Jul  1 09:00:55 calvisitor-10-105-160-95 kernel[0]: on",
            r"<14>Jul  1 \d\d:\d\d:\d\d calvisitor-10-105-160-95 kernel\[0\]: on",
        ),
        (
            "<14>[Sun Dec 04 04:47:44 2005] [notice] done",
            r"<14>\[[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d 2005\] \[notice\] done",
        ),
        (
            "<14>1 2026-01-31T06:55:46.123Z 203.0.113.1 sshd 24200 - - user root",
            r"<14>1 2026-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 203\.0\.113\.1 sshd 24200 - - user root",
        ),
    ],
)
def test_of_a_header_the_time_alone_becomes_another_although_it_holds_numbers_and_an_address(
    line: str, form: str
) -> None:
    changed = other(line)

    assert changed != line
    assert re.fullmatch(form, changed)
    before, after = (split(text, 1_767_225_600_000) for text in (line, changed))
    assert before.occurred_at_ms != after.occurred_at_ms
    assert replace(after, occurred_at_ms=before.occurred_at_ms) == before


def test_every_replay_has_the_keys_of_the_first_and_values_of_its_own() -> None:
    stream = Stream(60)
    first, second, again, third = (stream.replay(number) for number in (0, 1, 1, 2))

    def keys(texts: list[str]) -> list[str | None]:
        masked = (MASKING.mask(body_of(text)) for text in texts)
        return [found and found.key for found in masked]

    assert keys(first) == keys(second) == keys(third)
    assert second == again
    assert len(stream) == len(first)
    changed = [body_of(one) != body_of(two) for one, two in zip(first, second, strict=True)]
    assert sum(changed) / len(changed) > 0.3
    assert second != third


def test_every_replay_has_the_hosts_and_priorities_of_the_first_and_times_of_its_own() -> None:
    stream = Stream(60)
    first, second, third = ([split(text, 1_767_225_600_000) for text in stream.replay(number)] for number in range(3))

    def but_for_time(headers: list[Header]) -> list[Header]:
        return [replace(header, body="", occurred_at_ms=None) for header in headers]

    assert but_for_time(first) == but_for_time(second) == but_for_time(third)
    for one, next_one in ((first, second), (second, third)):
        times = [(a.occurred_at_ms, b.occurred_at_ms) for a, b in zip(one, next_one, strict=True)]
        assert any(before is not None for before, _ in times)
        assert all(before is None or before != after for before, after in times)


def test_each_wording_is_asked_about_once_unless_its_answer_holds_words_of_the_text() -> None:
    grave = replace(CRITICAL, fields={"source": ("203.0.113.9",)})
    asked = ScriptedClassifier(lambda text: grave if "attack" in text else BENIGN)
    asked._release = replace(RELEASE, prompt=Prompt(kind="encoder", wording="words-1"))
    classifier = Remembering(asked)
    texts = [f"{kind} from 203.0.113.{host}" for kind in ("login", "attack") for host in (9, 10, 9)]

    first = classifier.classify(texts[:1])
    rest = classifier.classify(texts)

    assert first + rest == [BENIGN] * 4 + [grave] * 3
    assert asked.asked == [texts[:1], texts[3:5]]


@pytest.mark.parametrize(
    ("doubtful", "opinion", "share"), [(True, BENIGN, 0.7), (True, DOUBTFUL, 0.7), (False, DOUBTFUL, 0)]
)
def test_a_first_pass_is_what_is_left_when_a_template_has_been_learnt(
    doubtful: bool,  # noqa: FBT001
    opinion: Opinion,
    share: float,
) -> None:
    lines = [f"worker: job {number} is done" for number in range(10_000, 10_010)]
    rules = CacheRules(doubtful=doubtful, ask_first=3, audit_rate=0, audit_rate_young=0)

    rates = hit_rates({"one": lines}, ScriptedClassifier(lambda _: opinion), Policy(cache=rules))

    assert rates == {"one": pytest.approx(share)}
