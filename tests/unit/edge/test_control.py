import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from structlog.testing import capture_logs

from dataflows.cache.verdict_cache import VerdictCache
from edge import cache_answers, control
from edge.cache_answers import Explain, Explanation, Forget, Forgotten, List, Listing
from edge.control import ControlServer, ask, socket_path
from models.classifier import Classifier, Current
from models.contracts.errors import UnavailableError
from models.contracts.policy import CacheRules, Policy
from tests.fakes.caches import cache, logins, teach
from tests.fakes.classifier import ScriptedClassifier
from tests.fakes.tiny_models import RELEASE

ALL = List(limit=1000)


@contextmanager
def serving(state_dir: Path, answering: VerdictCache, policy: Policy | None = None) -> Iterator[ControlServer]:
    classifier: Current[Classifier] = Current(ScriptedClassifier())
    server = ControlServer(state_dir, answering, classifier, Current(policy or Policy()))
    server.start()
    try:
        yield server
    finally:
        server.close()


def say(state_dir: Path, question: bytes) -> bytes:
    """What a client of another kind hears that says this and no more."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(socket_path(state_dir)))
        connection.sendall(question)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.fixture
def taught() -> VerdictCache:
    made = cache()
    teach(made, *logins(8))
    return made


def test_a_gateway_says_what_its_cache_knows(tmp_path: Path, taught: VerdictCache) -> None:
    teach(taught, "door 7 opened")
    with serving(tmp_path, taught):
        found = ask(tmp_path, ALL, Listing)
    assert found is not None
    assert [(each.state, each.hits + each.audits, each.label) for each in found.templates] == [
        ("answers", 5, "benign"),
        ("answers", 0, "benign"),
    ]
    assert found.total == 2


def test_a_state_path_may_be_longer_than_the_kernel_takes_for_a_socket(tmp_path: Path, taught: VerdictCache) -> None:
    state_dir = tmp_path.joinpath(*["a-rather-long-name"] * 10)
    state_dir.mkdir(parents=True)
    assert len(os.fsencode(socket_path(state_dir))) > 107
    with serving(state_dir, taught):
        assert socket_path(state_dir).is_socket()
        assert ask(state_dir, ALL, Listing) is not None
    assert not socket_path(state_dir).exists()


def test_a_relative_state_path_is_one_below_the_working_directory(
    tmp_path: Path, taught: VerdictCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("state").mkdir()
    with serving(Path("state"), taught):
        assert ask(tmp_path / "state", ALL, Listing) is not None


def test_the_socket_is_for_the_gateways_user_alone(tmp_path: Path, taught: VerdictCache) -> None:
    before = os.umask(0)
    try:
        with serving(tmp_path, taught):
            assert stat.S_IMODE(socket_path(tmp_path).stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_the_socket_of_a_gateway_that_was_killed_answers_nobody_and_is_replaced(
    tmp_path: Path, taught: VerdictCache
) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(socket_path(tmp_path)))
        killed.listen()
    assert socket_path(tmp_path).is_socket()
    assert ask(tmp_path, ALL, Listing) is None
    with serving(tmp_path, taught):
        assert ask(tmp_path, ALL, Listing) is not None


@pytest.mark.parametrize("name", ["never-made", "a-file", "a-file/below"])
def test_where_no_gateway_can_be_there_is_no_answer(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()
    assert ask(tmp_path / name, ALL, Listing) is None


def test_a_disk_that_takes_no_socket_costs_the_answers_alone(tmp_path: Path, taught: VerdictCache) -> None:
    socket_path(tmp_path).mkdir()
    with capture_logs() as said, serving(tmp_path, taught):
        assert ask(tmp_path, ALL, Listing) is None
    assert [each["event"] for each in said] == ["control_not_open"]


def test_what_is_forgotten_is_gone_with_the_next_events_and_not_before(tmp_path: Path, taught: VerdictCache) -> None:
    teach(taught, "door 7 opened")
    with serving(tmp_path, taught):
        first, second = (entry.name for _, entry in taught.listing())
        assert ask(tmp_path, Forget(first), Forgotten) == Forgotten(known=True)
        assert len(taught) == 2
        taught.follow(RELEASE, Policy())
        assert [entry.name for _, entry in taught.listing()] == [second]
        assert ask(tmp_path, Forget(first), Forgotten) == Forgotten(known=False)
        assert ask(tmp_path, Forget(None), Forgotten) == Forgotten(known=True)
        taught.follow(RELEASE, Policy())
    assert len(taught) == 0


def test_no_name_at_all_is_not_an_empty_one(tmp_path: Path, taught: VerdictCache) -> None:
    with serving(tmp_path, taught):
        assert b"length >= 1" in say(tmp_path, b'{"type":"forget","name":""}')
        assert b"missing required field" in say(tmp_path, b'{"type":"forget"}')
    taught.follow(RELEASE, Policy())
    assert len(taught) == 1


def test_a_gateway_that_stops_forgets_nothing_more(tmp_path: Path, taught: VerdictCache) -> None:
    with serving(tmp_path, taught) as server, socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(10)
        slow.connect(str(socket_path(tmp_path)))
        slow.sendall(b'{"type":"forget",')
        closing = threading.Thread(target=server.close)
        closing.start()
        while not server._closed.is_set():
            pass
        slow.sendall(b'"name":null}')
        slow.shutdown(socket.SHUT_WR)
        heard = slow.recv(4096)
        closing.join()
    assert json.loads(heard) == {"type": "problem", "words": "the gateway stops; ask again when it has"}
    taught.follow(RELEASE, Policy())
    assert len(taught) == 1


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\xff\xfe",
        b"[" * 10_000,
        b"GET / HTTP/1.1\r\n",
        b'{"type":"list"}',
        b'{"type":"grow"}',
        b"1" * 70_000,
        b'{"type":"\xff"}',
        b'{"type":"list","unknown":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
)
def test_what_is_no_question_is_answered_in_words_and_the_next_one_as_well(
    tmp_path: Path, taught: VerdictCache, question: bytes
) -> None:
    with serving(tmp_path, taught):
        heard = say(tmp_path, question)
        assert json.loads(heard)["type"] == "problem"
        assert ask(tmp_path, ALL, Listing) is not None


def test_who_says_nothing_keeps_others_waiting_for_a_moment_only(
    tmp_path: Path, taught: VerdictCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_CONVERSE_WITHIN_S", 0.3)
    with serving(tmp_path, taught), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(socket_path(tmp_path)))
        silent.sendall(b"{")
        began = monotonic()
        assert ask(tmp_path, ALL, Listing) is not None
        assert 0.2 < monotonic() - began < 5.0


def test_who_sends_a_byte_now_and_then_gains_no_time_by_it(
    tmp_path: Path, taught: VerdictCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_CONVERSE_WITHIN_S", 0.5)
    done = threading.Event()
    with serving(tmp_path, taught), socket.socket(socket.AF_UNIX) as trickling:
        trickling.connect(str(socket_path(tmp_path)))

        def trickle() -> None:
            while not done.wait(0.05):
                try:
                    trickling.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = monotonic()
        assert ask(tmp_path, ALL, Listing) is not None
        assert monotonic() - began < 5.0
        done.set()
        thread.join()


def test_a_gateway_that_does_not_answer_is_unavailable_and_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_ANSWER_WITHIN_S", 0.2)
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(socket_path(tmp_path)))
        stuck.listen()
        with pytest.raises(UnavailableError, match="no answer within"):
            ask(tmp_path, ALL, Listing)


def test_a_question_that_fails_does_not_end_the_answers(tmp_path: Path) -> None:
    class Failing(VerdictCache):
        def explain(self, text: str) -> tuple[None, None]:
            raise RuntimeError(text)

    with capture_logs() as said, serving(tmp_path, Failing(bytes(32))):
        with pytest.raises(UnavailableError, match="no answer that we understand"):
            ask(tmp_path, Explain("hello"), Explanation)
        assert ask(tmp_path, ALL, Listing) == Listing([], 0)
    assert [each["event"] for each in said] == ["control_failed"]


def test_a_listing_is_no_longer_than_a_gateway_may_spend_on_it(
    tmp_path: Path, taught: VerdictCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_answers, "_MOST_CHARACTERS", 20_000)
    for number in range(10):
        teach(taught, f"{'a' * 5000} {number}")
    with serving(tmp_path, taught):
        found = ask(tmp_path, ALL, Listing)
    assert found is not None
    assert (len(found.templates), found.total) == (4, 11)


def test_the_order_of_a_listing_is_that_which_was_asked_for(tmp_path: Path) -> None:
    clock = iter(range(1000, 10_000))
    made = VerdictCache(bytes(32), lambda: float(next(clock)))
    made.follow(RELEASE, Policy(cache=CacheRules(audit_rate_young=0.0, audit_rate=0.0, audit_rate_grave=0.0)))
    teach(made, "door 7 opened", "door 7 opened")
    teach(made, *logins(9))
    teach(made, "door 8 opened", "door 8 opened", "door 8 opened")
    with serving(tmp_path, made):

        def order(asked: List) -> list[int]:
            found = ask(tmp_path, asked, Listing)
            assert found is not None
            return [each.hits for each in found.templates]

        assert order(List(limit=10)) == [6, 2, 1]
        assert order(List(limit=2)) == [6, 2]
        assert order(List(limit=10, sort="age")) == [1, 6, 2]
        assert order(List(limit=10, sort="bound")) == [2, 6, 1]  # none was audited: the newest first


def test_an_explanation_says_whether_the_entry_would_answer(tmp_path: Path, taught: VerdictCache) -> None:
    teach(taught, *logins(2, user="admin"))
    with serving(tmp_path, taught):

        def explained(body: str) -> Explanation:
            found = ask(tmp_path, Explain(body), Explanation)
            assert found is not None
            return found

        known = explained("sshd: Failed password for root from 203.0.113.9 port 51234")
        assert known.template is not None
        assert (known.enabled, known.template.state, known.witness) == (True, "answers", False)
        learning = explained("sshd: Failed password for admin from 203.0.113.9 port 51234")
        assert learning.template is not None
        assert (learning.template.state, learning.template.witnesses, learning.template.wanted) == ("learning", 2, 3)
        assert not learning.witness
        assert explained(logins(2, user="admin")[1]).witness
        assert explained("never seen").template is None
        assert explained("a\x02b").masked is None
        assert explained("a" * 8193).masked is None


def test_an_entry_that_is_too_old_or_idle_to_answer_does_not_pass_for_one_that_does(
    tmp_path: Path, taught: VerdictCache
) -> None:
    for rules in (CacheRules(max_age_s=1e-9), CacheRules(max_idle_s=1e-9)):
        with serving(tmp_path, taught, Policy(cache=rules)):
            found = ask(tmp_path, ALL, Listing)
        assert found is not None
        assert [each.state for each in found.templates] == ["expired"]


def test_logs_name_what_is_forgotten_and_hold_no_text(tmp_path: Path, taught: VerdictCache) -> None:
    ((_, entry),) = taught.listing()
    with capture_logs() as said, serving(tmp_path, taught):
        ask(tmp_path, Forget(entry.name), Forgotten)
    (line,) = said
    assert (line["event"], line["template"]) == ("cache_forgets", entry.name)
    assert "Failed" not in str(line)
