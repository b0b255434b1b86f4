"""Dead letters put back on a real broker: each once, whole, where its record came from, and never where it must not."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread
from time import sleep, time
from typing import Any

import pytest

from central.dead_letters import cut
from central.local_kafka import LocalKafka
from central.replay import REPLAYED_FROM, Replay, Replayed, replay
from central.topics import Names, create, declared
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaProducer, Outgoing
from dataflows.connectors.kafka_reader import Record, read_whole
from dataflows.connectors.kafka_transaction import Transactions
from models.contracts.errors import ConfigError, UnavailableError
from models.contracts.event import LONGEST_ID, DeadLetter
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL
from models.contracts.wire import encode, encode_lines
from tests.fakes.verdicts import verdict
from tests.real.intake import wait_until

WITHIN_S = 60.0
SEED = 20260131
NOW_MS = int(time() * 1000)
REPLAY_IN_SMALL_STEPS = """
import sys
from central import replay
from central.topics import Names
from dataflows.connectors.kafka import Cluster

replay._TOGETHER = 10
print("ready", flush=True)
replay.replay(replay.Replay(cluster=Cluster(brokers=sys.argv[1]), names=Names(sys.argv[2])))
"""


class Centre:
    """The topics under a prefix of their own."""

    def __init__(self, kafka: LocalKafka, prefix: str) -> None:
        self.kafka = kafka
        self.cluster = Cluster(brokers=kafka.brokers)
        self.names = Names(prefix)
        create(self.cluster, declared(prefix, partitions=2))
        self._producer = KafkaProducer(self.cluster, stall_s=WITHIN_S)

    def bury(self, *letters: DeadLetter) -> None:
        topic = self.names.dead_letters
        assert self._producer.deliver([Outgoing(topic, each.id.encode(), encode(each)) for each in letters]) == []

    def replay(self, **wanted: Any) -> Replayed:
        return replay(Replay(cluster=self.cluster, names=self.names, **wanted))

    def there(self, topic: str) -> list[Record]:
        return list(read_whole(self.cluster, topic))

    def texts(self, topic: str = "") -> list[bytes | None]:
        return [record.value for record in self.there(topic or self.names.events)]

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def centre(kafka: LocalKafka, topic: str) -> Iterator[Centre]:
    centre = Centre(kafka, topic)
    yield centre
    centre.close()


def letter(centre: Centre, number: int, **other: Any) -> DeadLetter:
    usual: dict[str, Any] = {
        "id": EventId(f"{centre.names.events}.0.{number}"),
        "source": "events",
        "received_at_ms": 1_700_000_000_000 + number,
        "reason": "no-text-at-path",
        "detail": "`a.b`: found nothing, wanted a string",
        "raw": b"\xff event %d\x00" % number,
        "topic": centre.names.events,
        "key": b"key %d" % number,
        "headers": (("trace", b"\x00%d" % number),),
    }
    return DeadLetter(**{**usual, **other})


def test_a_record_comes_back_with_its_bytes_its_key_and_its_headers_and_says_from_where(centre: Centre) -> None:
    centre.bury(letter(centre, 0), letter(centre, 1, key=None, headers=()))
    done = centre.replay()

    assert (done.found, done.back, done.stuck) == (2, {centre.names.events: 2}, {})
    found = {record.value: record for record in centre.there(centre.names.events)}
    place = f"{centre.names.dead_letters}/0/".encode()
    whole, bare = found[b"\xff event 0\x00"], found[b"\xff event 1\x00"]
    assert (whole.key, whole.headers) == (b"key 0", (("trace", b"\x000"), (REPLAYED_FROM, place + b"0")))
    assert (bare.key, bare.headers) == (None, ((REPLAYED_FROM, place + b"1"),))


def test_a_second_replay_puts_back_only_what_came_since_unless_all_is_wanted_again(centre: Centre) -> None:
    centre.bury(*(letter(centre, number) for number in range(500)))
    assert centre.replay().back.total() == 500
    second = centre.replay()
    assert (second.found, second.before, second.back) == (500, 500, {})
    centre.bury(letter(centre, 500))
    third = centre.replay()
    assert (third.found, third.before, third.back.total()) == (501, 500, 1)
    assert Counter(centre.texts()) == Counter(b"\xff event %d\x00" % number for number in range(501))

    assert centre.replay(again=True).back.total() == 501


def test_a_letter_that_a_crash_wrote_twice_is_put_back_once(centre: Centre) -> None:
    centre.bury(letter(centre, 0), letter(centre, 0, received_at_ms=1_800_000_000_000))
    assert centre.replay().back.total() == 1
    assert centre.replay().back.total() == 0


def test_a_record_that_becomes_the_same_dead_letter_anew_is_put_back_anew_and_counted(centre: Centre) -> None:
    centre.bury(letter(centre, 0))
    assert centre.replay().recurred == 0
    (back,) = centre.there(centre.names.events)
    centre.bury(letter(centre, 0, headers=back.headers))
    second = centre.replay()

    assert (second.back.total(), second.recurred) == (1, 1)
    (_, again) = centre.there(centre.names.events)
    place = f"{centre.names.dead_letters}/0/1".encode()
    assert again.headers == (("trace", b"\x000"), (REPLAYED_FROM, place))


def test_only_what_was_asked_for_is_put_back_and_the_rest_later(centre: Centre) -> None:
    centre.bury(
        letter(centre, 0),
        letter(centre, 1, reason="not-json"),
        letter(centre, 2, source="others"),
        letter(centre, 3, reason="not-json", source="others"),
    )
    sleep(0.01)
    (*_, newest) = centre.there(centre.names.dead_letters)
    assert centre.replay(reasons={"not-json"}, sources={"others"}).back.total() == 1
    assert centre.texts() == [b"\xff event 3\x00"]
    assert centre.replay(reasons={"not-json"}).back.total() == 1
    assert centre.replay(since_ms=newest.written_at_ms + 1).found == 0
    assert centre.replay(limit=1).back.total() == 1
    assert centre.replay(dry_run=True).back == {centre.names.events: 1}
    assert len(centre.texts()) == 3
    assert centre.replay(dry_run=True, limit=0).back.total() == 0
    assert centre.replay().back.total() == 1

    assert sorted(centre.texts()) == [b"\xff event %d\x00" % number for number in range(4)]  # type: ignore[type-var]


def test_what_the_bridge_refused_goes_where_the_bridge_would_have_put_it(centre: Centre) -> None:
    def refused(number: int, reason: str, raw: bytes) -> DeadLetter:
        return letter(
            centre,
            number,
            source="uplink",
            reason=reason,
            topic="headwater/v1/gw-1/up/7",
            gateway="gw-1",
            raw=raw,
            key=None,
            headers=(),
        )

    def said(own_id: str, **other: Any) -> bytes:
        usual = {"id": f"gw-1~{own_id}", "gateway": "gw-1", "received_at_ms": NOW_MS}
        return encode(verdict(**{**usual, **other}))

    sure, doubted = said("a"), said("b", route="escalated")
    centre.bury(
        refused(0, "not-a-verdict", sure),  # of a schema that the centre reads by now
        refused(1, "not-a-verdict", doubted),
        refused(2, "of-another-gateway", said("c", id="gw-2~c", gateway="gw-2")),
        refused(3, "not-a-gateways-revision", said("d", revision=CENTRAL)),
        refused(4, "not-a-gateways-id", said("a", id="gw-2~a")),
        refused(5, "not-a-verdict", b"nothing of the kind"),
        refused(6, "id-too-long", said("e" * LONGEST_ID)),
        refused(7, "clock-ahead", said("f", received_at_ms=2 * NOW_MS)),
        refused(8, "too-old", said("g", received_at_ms=0)),
    )
    done = centre.replay()

    assert done.back == {centre.names.verdicts: 2, centre.names.questions: 1}
    assert sorted(done.stuck) == [
        f"{reason}: it has no way back of its own; say whither"
        for reason in (
            "clock-ahead",
            "id-too-long",
            "not-a-gateways-id",
            "not-a-gateways-revision",
            "not-a-verdict",
            "of-another-gateway",
            "too-old",
        )
    ]
    assert {(record.key, record.value) for record in centre.there(centre.names.verdicts)} == {
        (b"gw-1~a", sure),
        (b"gw-1~b", doubted),
    }
    assert [record.value for record in centre.there(centre.names.questions)] == [doubted]


def test_what_a_sink_refused_goes_to_the_verdicts_and_never_among_events(centre: Centre) -> None:
    said = encode(verdict(id="a"))
    centre.bury(
        letter(centre, 0, reason="refused-by-sink", raw=said, key=None),
        letter(centre, 1, reason="refused-by-sink", raw=b"<134>1 - a message to a SIEM", source="siem", topic=None),
    )
    done = centre.replay()

    assert done.back == {centre.names.verdicts: 1}
    assert done.stuck.total() == 1
    assert centre.texts() == []


def test_a_question_that_kafka_refused_is_asked_again(centre: Centre) -> None:
    asked = encode(verdict(id="gw-1~a", gateway="gw-1", route="escalated"))
    answered = encode(verdict(id="gw-1~b", gateway="gw-1", route="escalated", revision=CENTRAL))
    for number, raw in enumerate((asked, answered)):
        centre.bury(letter(centre, number, reason="refused-by-sink", raw=raw, key=None, gateway="gw-1"))

    assert centre.replay().back == {centre.names.verdicts: 2, centre.names.questions: 1}
    assert [record.value for record in centre.there(centre.names.questions)] == [asked]


@pytest.mark.parametrize("topic_of_letter", [None, "nobody-made-it", "sensors/7", "dead-letters of ours"])
def test_what_has_no_way_back_waits_until_somebody_says_whither(centre: Centre, topic_of_letter: str | None) -> None:
    whence = centre.names.dead_letters if topic_of_letter == "dead-letters of ours" else topic_of_letter
    centre.bury(letter(centre, 0, topic=whence))
    first = centre.replay()
    assert (first.back, first.stuck.total()) == ({}, 1)

    assert centre.replay(to=centre.names.events).back == {centre.names.events: 1}
    with pytest.raises(ConfigError, match="topic nobody-made-it: is not there; nothing was put back"):
        centre.replay(to="nobody-made-it")


def test_what_was_cut_is_not_put_back_as_if_it_were_whole_even_where_somebody_says_whither(centre: Centre) -> None:
    whole = letter(centre, 0, raw=os.urandom(17 << 10))
    centre.bury(cut(whole), cut(letter(centre, 1, key=bytes(90 << 10))), cut(letter(centre, 2, detail="x" * 5000)))
    for done in (centre.replay(), centre.replay(to=centre.names.events)):
        assert done.stuck == {"no-text-at-path: only a part of its record is kept": 2}

    assert centre.texts() == [b"\xff event 2\x00"]


def test_a_record_that_its_topic_does_not_take_stays_a_dead_letter_and_its_neighbours_go(centre: Centre) -> None:
    centre.kafka.make_topic(f"{centre.names.prefix}-small", max_message_bytes="2000")
    small = [letter(centre, number, topic=f"{centre.names.prefix}-small") for number in range(20)]
    noise = os.urandom(5000)
    centre.bury(*small[:7], letter(centre, 99, topic=f"{centre.names.prefix}-small", raw=noise), *small[7:])
    done = centre.replay()

    assert done.back.total() == 20
    ((why, count),) = done.stuck.items()
    assert (count, "MSG_SIZE_TOO_LARGE" in why) == (1, True)
    assert Counter(centre.texts(f"{centre.names.prefix}-small")) == Counter(each.raw for each in small)
    assert centre.replay().stuck.total() == 1


def test_files_of_dead_letters_are_put_back_once_and_what_is_no_dead_letter_is_counted(
    centre: Centre, tmp_path: Path
) -> None:
    file = tmp_path / "dead_letters.jsonl"
    whole = encode_lines([letter(centre, 0), letter(centre, 1)])
    file.write_bytes(whole + b"{}\n" + encode(letter(centre, 2)))  # the last line is being written
    done = centre.replay(files=(file,))
    assert (done.found, done.back.total(), done.unread) == (2, 2, 1)
    assert centre.replay(files=(file,)).before == 2

    found = {record.value: record.headers[-1] for record in centre.there(centre.names.events)}
    assert found[b"\xff event 1\x00"] == (REPLAYED_FROM, f"{file}/2".encode())
    with pytest.raises(ConfigError, match=r"absent\.jsonl: cannot be read"):
        centre.replay(files=(tmp_path / "absent.jsonl",))


def test_a_replay_that_is_killed_again_and_again_loses_and_doubles_nothing(centre: Centre) -> None:
    chance, count = Random(SEED), 6000
    centre.bury(*(letter(centre, number) for number in range(count)))
    reached = []
    for _ in range(4):
        command = [sys.executable, "-c", REPLAY_IN_SMALL_STEPS, centre.kafka.brokers, centre.names.prefix]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            sleep(chance.uniform(1, 3))  # the moment of the kill
            process.send_signal(signal.SIGKILL)
        reached.append(len(centre.texts()))
    assert len({0, count, *reached}) >= 4  # killed under way at least twice
    centre.replay()

    assert Counter(centre.texts()) == Counter(b"\xff event %d\x00" % number for number in range(count))


def test_of_two_replays_at_once_the_earlier_one_ends_and_says_why(centre: Centre) -> None:
    first = Transactions(centre.cluster, f"{centre.names.prefix}.replay")
    assert first.publish([Outgoing(centre.names.events, b"k", b"first")]) == ""
    centre.bury(letter(centre, 0))
    assert centre.replay().back.total() == 1
    with pytest.raises(UnavailableError, match="another one took up the name; let it end"):
        first.publish([Outgoing(centre.names.events, b"k", b"late")])
    first.close()

    assert sorted(centre.texts()) == [b"first", b"\xff event 0\x00"]  # type: ignore[type-var]


def test_a_replay_that_read_its_marks_before_another_began_puts_nothing_back_any_more(
    centre: Centre, tmp_path: Path
) -> None:
    lines = encode_lines([letter(centre, number) for number in range(50)])
    (file := tmp_path / "dead_letters.jsonl").write_bytes(lines)
    os.mkfifo(slow := tmp_path / "slow.jsonl")
    earlier = Earlier(centre, slow)
    with slow.open("wb") as letters:  # it is open as soon as the other reads, which is behind its marks
        assert centre.replay(files=(file,)).back.total() == 50
        letters.write(lines)

    assert "another one took up the name" in earlier.refusal()
    assert Counter(centre.texts()) == Counter(b"\xff event %d\x00" % number for number in range(50))


def test_a_replay_that_had_a_record_refused_does_not_take_its_name_from_whoever_has_it_by_then(
    centre: Centre, tmp_path: Path
) -> None:
    centre.kafka.make_topic(small := f"{centre.names.prefix}-small", max_message_bytes="2000")
    first = [letter(centre, number, topic=small) for number in range(199)]
    lines = encode_lines([letter(centre, number, topic=small) for number in range(199, 250)])
    (file := tmp_path / "dead_letters.jsonl").write_bytes(lines)
    os.mkfifo(slow := tmp_path / "slow.jsonl")
    earlier = Earlier(centre, slow)
    with slow.open("wb") as letters:
        letters.write(encode_lines([*first, letter(centre, 999, topic=small, raw=os.urandom(5000))]))
        letters.flush()
        wait_until(lambda: len(centre.texts(small)) == 199, "what is taken", WITHIN_S)
        sleep(1.0)  # for the last one to be refused alone
        assert centre.replay(files=(file,)).back.total() == 51
        letters.write(lines)

    assert "another one took up the name" in earlier.refusal()
    assert Counter(centre.texts(small)) == Counter(b"\xff event %d\x00" % number for number in range(250))


class Earlier:
    """A replay that reads a file which is being written."""

    def __init__(self, centre: Centre, file: Path) -> None:
        self._refusal = ""
        self._thread = Thread(target=self._run, args=(centre, file), daemon=True)
        self._thread.start()

    def refusal(self) -> str:
        """Wait for it; return why it ended, where it did not end by itself."""
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()
        return self._refusal

    def _run(self, centre: Centre, file: Path) -> None:
        try:
            centre.replay(files=(file,))
        except UnavailableError as error:
            self._refusal = str(error)


def test_a_replay_that_only_says_what_it_would_do_ends_no_other(centre: Centre) -> None:
    other = Transactions(centre.cluster, f"{centre.names.prefix}.replay")
    other.take_up()
    centre.bury(letter(centre, 0))
    assert centre.replay(dry_run=True).back.total() == 1
    assert other.publish([Outgoing(centre.names.events, b"k", b"goes on")]) == ""
    other.close()


def test_while_the_brokers_are_away_nothing_is_put_back_and_then_all_is(centre: Centre) -> None:
    centre.bury(letter(centre, 0))
    centre.kafka.stop(signal.SIGKILL)
    with pytest.raises(UnavailableError, match="Connection refused"):
        centre.replay()
    centre.kafka.start()

    assert centre.replay().back.total() == 1
    assert centre.texts() == [b"\xff event 0\x00"]
