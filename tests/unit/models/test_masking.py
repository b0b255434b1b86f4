"""The key of an event: what is masked, by kind, and what an attacker could write never is."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models import masking
from models.contracts.policy import MASKS, Mask
from models.masking import CLOSE, LONGEST_TEXT, OPEN, Masked, Masking
from tests.checks.growth import LONG, grows_with_its_length
from tests.checks.twins import PAIRS, TEXTS, TWINS, UUID

MOST_MASKS = 256

# Texts and their keys, with ⟨ and ⟩ around the masks.
ADDRESSES = [
    ("from 203.0.113.9 port 22", "from ⟨public address⟩ port 22"),
    ("10.0.0.1 172.16.0.1 172.31.0.1 192.168.1.1 169.254.7.7", " ".join(["⟨private address⟩"] * 5)),
    ("172.15.0.1 172.32.0.1 11.0.0.1", " ".join(["⟨public address⟩"] * 3)),
    ("127.0.0.1 127.8.8.8", "⟨loopback address⟩ ⟨loopback address⟩"),
    ("224.0.0.251 239.1.2.3 240.0.0.1 0.1.2.3", "⟨multicast address⟩ ⟨multicast address⟩" + " ⟨reserved address⟩" * 2),
    ("2001:db8::1 2a00:1450::8a", "⟨public address⟩ ⟨public address⟩"),
    ("fe80::1 fc00::1 FD12:0:0::1", "⟨private address⟩ ⟨private address⟩ ⟨private address⟩"),
    ("::1 0:0:0:0:0:0:0:1 ff02::1", "⟨loopback address⟩ ⟨loopback address⟩ ⟨multicast address⟩"),
    ("rhost=203.0.113.9, [203.0.113.9] (203.0.113.9) <203.0.113.9>;",
     "rhost=⟨public address⟩, [⟨public address⟩] (⟨public address⟩) <⟨public address⟩>;"),
    ("closed by 203.0.113.9.", "closed by ⟨public address⟩."),
    ("from 203.0.113.9:51234, client: 203.0.113.9:443",
     "from ⟨public address⟩:⟨port for anyone⟩, client: ⟨public address⟩:443"),
    ("203.0.113.9:51234 to 203.0.113.9:51234", "⟨public address⟩:51234 to ⟨public address⟩:51234"),
]  # fmt: skip
TIMES = [
    ("at 12:34:56 or 2:34:56.789", "at ⟨time⟩ or ⟨time⟩"),
    ("2024-05-06T07:08:09.123Z 2024-05-06T07:08:09+02:00", "⟨time⟩ ⟨time⟩"),
    ("2024-05-06 07:08:09", "⟨time⟩ ⟨time⟩"),
    ("[28/Dec/2024:07:08:09 +0100] 2024/05/06 5/6/2024", "[⟨time⟩ +0100] ⟨time⟩ ⟨time⟩"),
    ("at Wed Jul 27 10:59:53 2005 and Sat Jul  9 22:53:22 CEST 2005", "at ⟨time⟩ and ⟨time⟩"),
    ("1714979289 1714979289.123", "⟨time⟩ ⟨time⟩"),
    ("1714979289123 1714979289123456", "⟨time of 13 digits⟩ ⟨time of 16 digits⟩"),
]
IDENTIFIERS = [
    (f"request {UUID} done", "request ⟨uuid of 36⟩ done"),
    ("9f86d081884c7d65 " + "0aF1" * 16, "⟨hex of 16⟩ ⟨hex of 64⟩"),
    ("at 0x7fdcc9d16380", "at ⟨pointer of 14⟩"),
    ("bssid 0c:68:03:d6:c5:1c 0C-68-03-D6-C5-1C", "bssid ⟨mac of 17⟩ ⟨mac of 17⟩"),
]
NUMBERS = [
    ("12345 123456 1234567890123", "⟨5 digits⟩ ⟨6 digits⟩ ⟨13 digits⟩"),
    ("seq=2863091569, ack 1.5 took 12.345678", "seq=⟨10 digits⟩, ack 1.5 took ⟨2 digits of decimal⟩"),
    ("waited for 12345 seconds", "waited for ⟨5 digits⟩ seconds"),
]
PORTS = [
    ("sport=51234 SPT=44444", "sport=⟨port for anyone⟩ SPT=⟨port for anyone⟩"),
    ("for root from 203.0.113.9 port 51234 ssh2", "for root from ⟨public address⟩ port ⟨port for anyone⟩ ssh2"),
    ("from user root 2001:db8::1 port 51234", "from user root ⟨public address⟩ port ⟨port for anyone⟩"),
    ("closed by 203.0.113.9 port 51234 [preauth]", "closed by ⟨public address⟩ port ⟨port for anyone⟩ [preauth]"),
    ("from 10.0.0.1 port 51234 on 10.0.0.2 port 51234",
     "from ⟨private address⟩ port ⟨port for anyone⟩ on ⟨private address⟩ port 51234"),
    ("from 10.0.0.1 to 10.0.0.2 port 51234", "from ⟨private address⟩ to ⟨private address⟩ port 51234"),
    ("port 51234, listening on port 51234", "port 51234, listening on port 51234"),
    ('{"destination":{"port":51234}}', '{"destination":{"port":51234}}'),
    ('{"src_port": 51234}', '{"src_port": ⟨port for anyone⟩}'),
    ("port 31337 port 4444 port 22 port 65536", "port 31337 port 4444 port 22 port 65536"),
    ("dport=51234 DPT=51234 dst_port 51234 dst-port=51234", "dport=51234 DPT=51234 dst_port 51234 dst-port=51234"),
]  # fmt: skip
COUNTERS = [
    ("pid=4321 child 77 slot 12", "pid=⟨count⟩ child ⟨count⟩ slot ⟨count⟩"),
    ("process[4321] worker 12 Thread: 99", "process[⟨count⟩] worker ⟨count⟩ Thread: ⟨count⟩"),
    ("cupid 4321 pid 1", "cupid 4321 pid 1"),
]
AMOUNTS = [
    ("took 345ms sent 12MB 7s", "took ⟨3 digits of ms⟩ sent ⟨2 digits of MB⟩ ⟨1 digits of s⟩"),
    ("took 345 ms, 12 bytes.", "took ⟨3 digits⟩ ms, ⟨2 digits⟩ bytes."),
    ("1.5GiB 15.25GiB", "⟨1 digits of GiB⟩ ⟨2 digits of GiB⟩"),
]
STRUCTURES = [
    ('{"sport":51234,"size": 123456,"ip":"10.0.0.1"}',
     '{"sport":⟨port for anyone⟩,"size": ⟨6 digits⟩,"ip":"⟨private address⟩"}'),
    ('{"a":{"b":[{"c":123456},654321]}}', '{"a":{"b":[{"c":⟨6 digits⟩},⟨6 digits⟩]}}'),
    ("{'size': 123456, 'id': '123456'}", "{'size': ⟨6 digits⟩, 'id': '⟨6 digits⟩'}"),
    ("<Size>123456</Size>", "<Size>⟨6 digits⟩</Size>"),
    ("don't 123456 'quoted' it's 123456", "don't ⟨6 digits⟩ 'quoted' it's ⟨6 digits⟩"),
]  # fmt: skip

# What stays as it is, character by character.
WORDS = [
    "Failed password for invalid user 123456 from here",
    "Accepted password for 123456 and for abcdef0123",
    "user='123456' acct=\"123456\" login: 123456 uid=100001 auid=4294967295",
    'user "10.0.0.1" name=deadbeef01',
    "http status 200, 401, 5043 and error 40001",
    '{"status":"50126","errorCode":50126,"resultType": 50053,"ERROR_CODE":"000904"}',
    "<Status>80070005</Status> status c000006d NTSTATUS 0xC000006D",
    "mode=0100755 eventid=100001 logid=0100032002 signature_id: 2010935",
    "CEF:0|Vendor|Product|1.0|100045|Login|5|",
    '[ruleid "942100"]',
    "MSSQLSERVER 15457: Configuration option changed",
    '{"Task":13824,"_CAP_EFFECTIVE":"1ffffffffff","level_value":20000,"build": 19045}',
    "version 1.2.3.4 version: 12345",
    "CVE-2021-44228 T1059.001 KB5034441 %ASA-6-302013: S-1-5-21-3623811015-3361044348",
    "/var/log/12345 /10.0.0.1/x C:\\12345\\x http://10.0.0.1:51234/12345?id=123456",
    "GET /?a=1,123456&b=(10.0.0.1) and 1=2&id=123456",
    "host-12345.example 10.0.0.1.example user@10.0.0.1 outside:10.0.0.1/51234",
    "1.2.3 1.2.3.4.5 256.1.1.1 010.0.0.1 1.2.3.04 v1.2.3.4 10.0.0.1/8",
    "deadbeef is a word, and so is defaced",
    "1 22 333 4444 -12345 12,345 1e10",
    'Account Name:\t\t400000 Error Code:\t50053 user =\t"deadbeef01"',
    "user" + " " * 100 + "400000",
    'Event ID: 50053 [id "942100"] {"rule":{"id":"100045"}} {"sid":2010935} with exit 40000',
]
SPECIAL = [
    "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 fd20:ce::254",
    "0.0.0.0 255.255.255.255",
    "fd00:ec2::254 FD00:EC2:0:0::254",
    "::ffff:a9fe:a9fe ::a9fe:a9fe 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 2001:0:4136:e378::1",
]
QUOTED = [
    'agent "Mozilla/5.0 123456 (10.0.0.1)"',
    r'agent "say \"123456\" twice 123456"',
    r'path "C:\123456\" and 123456 in a string that this opens "',
    "it said 'we saw 123456 there'",
    "it said 'it's 123456 there'",
    'not closed " 123456 10.0.0.1',
    "not closed ' 123456 10.0.0.1",
    r"\"123456 \"x",
]
ENCODED = [
    "echo 726d202d7266202f746d70 xx",  # rm -rf /tmp
    "proctitle=636174002F6574632F706173737764 10.0.0.1",
    "2F62696E2F7368",
]
COMMANDS = [
    "root : USER=root ; COMMAND=/bin/nc 10.0.0.1 51234",
    "(root) CMD (run-parts 123456)",
    "Process Command Line: nc 10.0.0.1 51234",
    "ProcessCommandLine=kill 123456",
    "argc=3 a0=6B696C6C a1=123456 a2=10.0.0.1",
    "cmd: 123456",
    '{"args":["nc","10.0.0.1","51234"]}',
    r'{"args": [ "a]b", "\"]", "51234"], "n": 1}',
]
KEYS = ['{"123456": 1, "10.0.0.1":{}, "deadbeef01" : 2}']
ABROAD = [
    "１２３４５ ١٢٣٤٥ 𝟏𝟐𝟑𝟒𝟓",  # noqa: RUF001 - digits that are none of ours
    "12345\u00a0 \u200b12345 1\u03012345 ²12345",
    "10。0。0。1 10.0.0.１",  # noqa: RUF001
]


def shown(text: str, masking: Masking | None = None) -> str:
    masked = (masking or Masking()).mask(text)
    assert masked is not None
    return masked.key.replace(OPEN, "⟨").replace(CLOSE, "⟩")


def literals(text: str, masked: Masked) -> list[str]:
    """What of a text is not masked."""
    ends = [0, *(end for _, end in masked.spans)]
    begins = [*(begin for begin, _ in masked.spans), len(text)]
    return [text[end:begin] for end, begin in zip(ends, begins, strict=True)]


@pytest.mark.parametrize(
    ("text", "key"), [*ADDRESSES, *TIMES, *IDENTIFIERS, *NUMBERS, *PORTS, *COUNTERS, *AMOUNTS, *STRUCTURES]
)
def test_a_word_of_a_kind_is_masked_and_the_mask_keeps_what_may_matter(text: str, key: str) -> None:
    assert shown(text) == key


@pytest.mark.parametrize("text", [*WORDS, *SPECIAL, *QUOTED, *ENCODED, *COMMANDS, *KEYS, *ABROAD])
def test_what_tells_events_apart_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("status 200 from 10.0.0.1", "status 401 from 10.0.0.1"),
        ("listens on port 22", "listens on port 4444"),
        ("from 203.0.113.9", "from 10.0.0.9"),
        ("from 203.0.113.9", "from 127.0.0.9"),
        ("from 10.0.0.9", "from 127.0.0.9"),
        ("from 169.254.169.253", "from 169.254.169.254"),
        ("from 2001:db8::1", "from fe80::1"),
        ("sent 12345 bytes", "sent 123456 bytes"),
        ("sent 1500000000 bytes", "sent 1500000000000 bytes"),
        ("sent 12MB", "sent 123MB"),
        ("sent 12MB", "sent 12GB"),
        ("hash " + "0a" * 16, "hash " + "0a" * 20),
        ("by root from 10.0.0.1", "by admin from 10.0.0.1"),
        ("from 10.0.0.1", "From 10.0.0.1"),
        ("from 10.0.0.1", "from  10.0.0.1"),
        ("a 10.0.0.1, b", "a 10.0.0.1; b"),
        ('{"a": 12345, "b": 1}', '{"b": 1, "a": 12345}'),
    ],
)
def test_two_events_that_differ_in_what_may_matter_have_two_keys(one: str, other: str) -> None:
    assert shown(one) != shown(other)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("address", "from 10.0.0.1 and 2001:db8::1"),
        ("time", "at 12:34:56 1714979289 1714979289123 2024-05-06"),
        ("identifier", f"{UUID} 9f86d081884c7d65 0x7fdcc9d16380 0c:68:03:d6:c5:1c"),
        ("number", "12345 12.345678"),
        ("port", "sport=51234"),
        ("counter", "pid 4321"),
        ("amount", "345ms 345 ms"),
    ],
)
def test_a_kind_that_is_switched_off_stays_and_so_do_the_others_where_it_is_the_only_one(kind: Mask, text: str) -> None:
    others = [other for other in MASKS if other != kind]

    assert shown(text, Masking(others)) == text
    assert shown(text, Masking([kind])) == shown(text) != text


def test_an_address_may_stay_where_its_port_is_masked_and_the_other_way_round() -> None:
    text = "from 10.0.0.1:51234"

    assert shown(text, Masking(["port"])) == "from 10.0.0.1:⟨port for anyone⟩"
    assert shown(text, Masking(["address"])) == "from ⟨private address⟩:51234"


def test_an_address_that_the_policy_knows_stays_however_it_is_written() -> None:
    known = Masking(known_addresses=["203.0.113.9", "2001:DB8:0::1", "no address"])

    assert shown("203.0.113.9 from 203.0.113.9:51234 203.0.113.8", known) == (
        "203.0.113.9 from 203.0.113.9:⟨port for anyone⟩ ⟨public address⟩"
    )
    assert shown("2001:db8::1 2001:DB8:0:0::1 2001:db8::2", known) == "2001:db8::1 2001:DB8:0:0::1 ⟨public address⟩"


@pytest.mark.parametrize(
    "text",
    [
        f"forged {OPEN}5 digits{CLOSE}",
        f"half {OPEN}",
        f"half {CLOSE}",
        "half a character \ud800",
        "x" * (LONGEST_TEXT + 1),
        "12345 " * (MOST_MASKS + 1),
    ],
)
def test_a_text_of_which_no_key_could_be_sure_has_none(text: str) -> None:
    assert Masking().mask(text) is None


def test_a_text_at_the_limits_has_a_key() -> None:
    assert Masking().mask("x" * LONGEST_TEXT) == Masked("x" * LONGEST_TEXT, ())
    masked = Masking().mask("12345 " * MOST_MASKS)
    assert masked is not None
    assert len(masked.spans) == MOST_MASKS
    assert shown("") == ""


def test_digits_beyond_any_number_are_a_text_that_somebody_encoded() -> None:
    assert shown("1" * 39) == "⟨39 digits⟩"
    assert shown("7" * 129) == "7" * 129


@given(TEXTS)
def test_a_key_is_the_text_with_each_masked_word_replaced_and_nothing_else(text: str) -> None:
    masked = Masking().mask(text)
    assume(masked is not None)
    assert masked is not None

    masks = re.findall(f"{OPEN}([^{OPEN}{CLOSE}]+){CLOSE}", masked.key)
    parts = literals(text, masked)
    assert len(masks) == len(masked.spans)
    assert masked.key == parts[0] + "".join(f"{OPEN}{m}{CLOSE}{part}" for m, part in zip(masks, parts[1:], strict=True))
    ends = [0, *(end for _, end in masked.spans)]
    assert all(end <= begin < after for end, (begin, after) in zip(ends, masked.spans, strict=False))


@given(TWINS)
def test_two_texts_with_one_key_differ_in_masked_words_alone(twins: tuple[str, str]) -> None:
    one, other = twins
    mine, theirs = Masking().mask(one), Masking().mask(other)
    assert mine is not None
    assert theirs is not None

    assert (mine.key == theirs.key) <= (literals(one, mine) == literals(other, theirs))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_words_of_one_kind_have_one_mask(one: str, other: str) -> None:
    assert shown(f"a {one} b") == shown(f"a {other} b") != f"a {one} b"


@given(TEXTS, st.sampled_from(["", "root", "/etc/shadow", "$(id)", "' OR 1=1--", "../..", "é", "GET /?q=12345"]))
def test_no_character_that_no_number_address_or_time_is_made_of_is_ever_masked(text: str, more: str) -> None:
    text += more
    masked = Masking().mask(text)
    assume(masked is not None)
    assert masked is not None

    for begin, end in masked.spans:
        assert re.fullmatch(r"[0-9A-Za-z.,:/ +-]+", text[begin:end])
        assert re.search(r"[0-9]", text[begin:end])


@given(TEXTS)
def test_a_key_is_the_same_whoever_makes_it_and_whenever(text: str) -> None:
    assert Masking().mask(text) == Masking(tuple(reversed(MASKS))).mask(text)


HOSTILE = [
    "7", "1234567 ", '"', '" ', "'", " '", "'a ", "\\", '\\"', "\\'", ":", "::", "a:", "1:", ".", "1.", "1.1.1.", "af0",
    "10.0.0.1 ", "af0 ", "00", "[", "]", '["', '":[', '"a":["', "(", "{", " ", "\n", "=", "=1", "0x", "1-", "2024-05-",
    "Mon ", "cmd", "cmd ", "command line", "port ", "port 1", "for ", ".:!?", "1.:!?", "é", "\uff11", "::1 ",
    "fe80::1 ", "1 ms ", "?", "a?", "& ", "=1&",
]  # fmt: skip
BEGINNINGS = [
    ('"', "a"),
    ('"', "\\a"),
    ("'", "a'"),
    (" '", "\\"),
    ('"a":', " "),
    ('"a":[', " "),
    ('"a":["', '","'),
    ("1", "a"),
]


@pytest.mark.parametrize(("begin", "unit"), [*(("", unit) for unit in HOSTILE), *BEGINNINGS])
def test_a_hostile_text_has_its_key_in_time_by_its_length(
    begin: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if there were no limits, which would hide what a text costs beyond them.
    monkeypatch.setattr(masking, "LONGEST_TEXT", LONG)
    monkeypatch.setattr(masking, "_MOST_MASKS", LONG)

    assert grows_with_its_length(Masking().mask, begin, unit)
