"""The classifier behind a server: everything at once, in its time, and each event for itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, UnavailableError, UntrustedError
from models.contracts.opinion import Opinion
from models.engines.openai_classifier import OpenAiClassifier
from tests.checks.classifier import LINES
from tests.fakes.engine_server import NOTHING, Body, EngineServer, Reply
from tests.fakes.tiny_models import RELEASE

BUSY: Reply = (503, b"{}")
PLENTY_S = 60.0
SHORT_S = 1.0
PLAIN = replace(RELEASE, task=replace(RELEASE.task, fields_for=()))


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer() as running:
        yield running


def asked(
    server: EngineServer, texts: list[str], does: Callable[[str, Body], Reply | None], budget_s: float = PLENTY_S
) -> list[Opinion]:
    """Open a classifier on a server in good health, which then does something."""
    with closing(OpenAiClassifier(server.url, PLAIN, budget_s=budget_s)) as classifier:
        server.does = does
        return classifier.classify(texts)


def about(word: str, reply: Callable[[], Reply]) -> Callable[[str, Body], Reply | None]:
    """Do something about events with a word in them, when they are tokenised."""
    return lambda path, body: reply() if path == "/tokenize" and word in body["prompt"] else None


def test_all_events_of_a_batch_are_on_their_way_at_once_and_no_more_than_may_be(server: EngineServer) -> None:
    with closing(OpenAiClassifier(server.url, PLAIN, budget_s=PLENTY_S, concurrency=16)) as classifier:
        met = threading.Barrier(16)

        def together(path: str, _body: Body) -> None:
            if path == "/tokenize":
                met.wait(PLENTY_S)  # whoever asks one by one waits here for ever

        server.does = together
        opinions = classifier.classify([f"{line} {number}" for number in range(16) for line in LINES[:4]])

    assert not any(opinion.unanswered for opinion in opinions)
    # Each question of the labels' tree is a request of its own.
    assert server.most_at_once <= 16 * 2


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server: EngineServer) -> None:
    answers = iter([BUSY, (429, b""), *[None] * 99])

    (opinion,) = asked(server, ["one event"], lambda _path, _body: next(answers))

    assert opinion.unanswered == ""


def test_a_connection_that_is_cut_is_made_anew(server: EngineServer) -> None:
    answers = iter([NOTHING, NOTHING, *[None] * 99])

    (opinion,) = asked(server, ["one event"], lambda _path, _body: next(answers))

    assert opinion.unanswered == ""


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (BUSY, "engine-down"),
        (NOTHING, "engine-down"),
        ((400, b"too long"), "engine-refused"),
        ((413, b""), "engine-refused"),
        ((401, b"the key was taken away"), "engine-down"),
        ((404, b"the model was taken away"), "engine-down"),
        ((302, b""), "engine-refused"),
        ((200, b""), "engine-nonsense"),
        ((200, b"\xff\x00"), "engine-nonsense"),
        ((200, b'{"tokens": ["x"]}'), "engine-nonsense"),
        ((200, b"[" * 50_000), "engine-nonsense"),
        ((200, b" " * (5 << 20)), "engine-nonsense"),
    ],
)
def test_one_event_that_is_not_answered_says_so_and_the_others_have_their_opinions(
    server: EngineServer, reply: Reply, reason: str
) -> None:
    good, bad, other = asked(server, ["first", "poison", "second"], about("poison", lambda: reply))

    assert (good.unanswered, bad.unanswered, other.unanswered) == ("", reason, "")
    assert bad.probabilities == (1 / 3, 1 / 3, 1 / 3)
    assert bad.label_mass == 0


def test_an_event_that_takes_too_long_is_given_up_and_the_others_are_not(server: EngineServer) -> None:
    forever = threading.Event()
    slow = about("slow", lambda: (forever.wait(), NOTHING)[1])
    # Long enough for the two that are answered, on whatever machine.
    good, late, other = asked(server, ["first", "slow", "second"], slow, budget_s=10.0)
    forever.set()

    assert (good.unanswered, late.unanswered, other.unanswered) == ("", "engine-timeout", "")


def test_a_server_that_hangs_costs_a_batch_the_time_of_one_event_however_many_there_are(server: EngineServer) -> None:
    with closing(OpenAiClassifier(server.url, PLAIN, budget_s=PLENTY_S, concurrency=8)) as classifier:
        classifier._budget_s = SHORT_S
        forever = threading.Event()
        server.does = lambda _path, _body: (forever.wait(), NOTHING)[1]
        began = time.monotonic()
        opinions = classifier.classify([f"event {number}" for number in range(800)])
        took = time.monotonic() - began
        forever.set()

    assert {opinion.unanswered for opinion in opinions} == {"engine-timeout"}
    assert took < 50 * SHORT_S  # a hundred, one eight after the other


def test_what_was_answered_is_remembered_and_what_was_not_is_asked_again(server: EngineServer) -> None:
    with closing(OpenAiClassifier(server.url, PLAIN, budget_s=PLENTY_S)) as classifier:
        first = classifier.classify(["known"])
        server.does = lambda _path, _body: (400, b"")
        again = classifier.classify(["known", "unknown"])
        server.does = lambda _path, _body: None
        last = classifier.classify(["unknown"])

    assert again[0] == first[0]
    assert (again[1].unanswered, last[0].unanswered) == ("engine-refused", "")


def test_fields_are_written_for_the_labels_that_have_them_and_hold_nothing_that_the_event_does_not(
    server: EngineServer,
) -> None:
    texts = [f"sshd: Failed password for root {number}" for number in range(40)]
    with closing(OpenAiClassifier(server.url, RELEASE, budget_s=PLENTY_S)) as classifier:
        opinions = classifier.classify(texts)
    labels = [opinion.probabilities.index(max(opinion.probabilities)) for opinion in opinions]

    assert {0, 1} < {*labels} or {0, 2} < {*labels}  # some with fields and some without
    for label, opinion in zip(labels, opinions, strict=True):
        wanted = {"source": ("root",), "technique": ("T1110",), "observable": ("root",)}
        assert (opinion.fields, opinion.ungrounded) == ((wanted, 1) if label else ({}, 0))


@pytest.mark.parametrize("mark", ["<|im_end|>", "[PAD7]", "a<|im_start|>b", "<|im_end|>" * 8])
def test_a_mark_in_an_event_never_reaches_the_server_as_a_token(server: EngineServer, mark: str) -> None:
    prompts: list[list[int]] = []

    def listen(path: str, body: Body) -> None:
        if path == "/v1/completions":
            prompts.append(body["prompt"])

    (opinion,) = asked(server, [f"sshd: {mark}"], listen)

    assert opinion.unanswered == ""
    assert all(mark.encode() in bytes(prompt) for prompt in prompts)  # no token is above 255


def test_an_event_full_of_marks_goes_to_a_person_and_costs_few_requests(server: EngineServer) -> None:
    with closing(OpenAiClassifier(server.url, PLAIN, budget_s=PLENTY_S)) as classifier:
        server.requests.clear()
        (opinion,) = classifier.classify(["".join(f"<|im_end|>{number}" for number in range(1000))])

    assert opinion.unanswered == "engine-refused"
    assert server.requests.total() == 1


def test_a_text_that_is_too_long_is_cut_and_keeps_both_its_ends(server: EngineServer) -> None:
    prompts: list[bytes] = []

    def listen(path: str, body: Body) -> None:
        if path == "/v1/completions":
            prompts.append(bytes(body["prompt"]))

    (opinion,) = asked(server, ["begin " + "word " * 9000 + "end"], listen)

    assert opinion.truncated
    assert all(b"Event:begin word" in prompt and b"word end\nLabel:" in prompt for prompt in prompts)
    assert all(len(prompt) <= 1024 for prompt in prompts)


@pytest.mark.parametrize("url", ["", "engine", "ftp://127.0.0.1:1", "http://", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_the_operators_to_correct(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        OpenAiClassifier(url, PLAIN)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with EngineServer() as gone:
        url = gone.url
    with pytest.raises(UnavailableError, match=f"{url}/v1/models"):
        OpenAiClassifier(url, PLAIN)


def test_a_server_that_hangs_when_it_is_opened_is_unavailable(server: EngineServer) -> None:
    forever = threading.Event()
    server.does = lambda _path, _body: (forever.wait(), NOTHING)[1]
    with pytest.raises(UnavailableError, match="does not answer within 1 s"):
        OpenAiClassifier(server.url, PLAIN, budget_s=SHORT_S)
    forever.set()


@pytest.mark.parametrize(
    ("path", "reply", "kind", "says"),
    [
        ("/v1/models", (404, b"no such page"), UntrustedError, "answers 404: no such page; refused it"),
        ("/v1/models", (401, b""), ConfigError, "set `api_key`"),
        ("/v1/models", (200, b"<html>"), UntrustedError, "list of models"),
        ("/tokenizer_info", (404, b""), ConfigError, "start vLLM with `--enable-tokenizer-info-endpoint`"),
        ("/v1/completions", (200, b"{}"), UntrustedError, "completion"),
    ],
)
def test_a_server_that_is_another_than_was_promised_is_refused_when_it_is_opened(
    server: EngineServer, path: str, reply: Reply, kind: type[Exception], says: str
) -> None:
    server.does = lambda asked, _body: reply if asked == path else None

    with pytest.raises(kind, match=says):
        OpenAiClassifier(server.url, PLAIN)


def test_the_key_is_sent_and_the_address_may_end_in_v1(server: EngineServer) -> None:
    with closing(OpenAiClassifier(f"{server.url}/v1/", PLAIN, api_key="secret", budget_s=PLENTY_S)) as classifier:
        assert classifier.classify(["an event"])[0].unanswered == ""


def test_one_that_is_closed_while_it_waits_says_so_at_once(server: EngineServer) -> None:
    classifier = OpenAiClassifier(server.url, PLAIN, budget_s=PLENTY_S)
    forever, begun = threading.Event(), threading.Event()
    server.does = lambda _path, _body: (begun.set(), forever.wait(), NOTHING)[2]
    ended: list[Exception] = []

    def ask() -> None:
        try:
            classifier.classify(["an event"])
        except UnavailableError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    begun.wait(PLENTY_S)
    classifier.close()
    thread.join(PLENTY_S)
    forever.set()

    assert [str(error) for error in ended] == [f"{server.url}: the classifier is closed"]
