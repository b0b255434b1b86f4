"""Whoever writes log lines tries to have an attack answered with an old "benign".

The model of these tests reads the whole text and finds the sign of the attack wherever it stands, so an attack that
shares its key with what was taught shows as a wrong verdict. Nothing is audited but where a test says so.
"""

import json
import re
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts.opinion import Opinion
from models.masking import CLOSE, LONGEST_TEXT, OPEN, Masking
from tests.fakes.answering import Answering
from tests.fakes.classifier import BENIGN, CRITICAL

TAUGHT = 40  # times as many as are asked about


def finds(*signs: str) -> Callable[[str], Opinion]:
    return lambda text: CRITICAL if any(sign in text for sign in signs) else BENIGN


def teach(answering: Answering, form: str) -> None:
    """Send events of a form with a number and an address of its own each, until they are answered."""
    chance = Random(form)
    for _ in range(TAUGHT):
        number = chance.randrange(100_000, 1_000_000)
        address = f"203.0.113.{100 + number % 100}"
        (verdict,) = answering.window(form.replace("{n}", str(number)).replace("{ip}", address))
    assert verdict.cached is not None, "the cache was not taught, and the test would prove nothing"


# A line that is taught, and the same line as the attacker writes it; `{n}` and `{ip}` are masked, and what
# the model would know the attack by is the sign.
KEPT = {
    "another user": ("login of bob from {ip}", "login of root from 203.0.113.9", "root"),
    "a user whose name is a number": ("user 400000 in {n}", "user 666666 in 123456", "666666"),
    "a user whose name is hexadecimal": ("user abcdef01 in {n}", "user deadbe01 in 123456", "deadbe01"),
    "a path": ("open /srv/a {n}", "open /etc/shadow 123456", "shadow"),
    "a path that ends in a number": ("open /proc/100000 {n}", "open /proc/666666 123456", "666666"),
    "a file": ("saved report.pdf {n}", "saved report.exe 123456", ".exe"),
    "a command": ("{n} COMMAND=/bin/ls 100000", "123456 COMMAND=/bin/rm 100000", "rm"),
    "an argument of a command": ("{n} COMMAND=/bin/kill 100000", "123456 COMMAND=/bin/kill 666666", "666666"),
    "an address in a command": ("{n} CMD (nc 203.0.113.9)", "123456 CMD (nc 203.0.113.66)", ".66"),
    "an argument in JSON": ('{"n":{n},"args":["nc","20000"]}', '{"n":123456,"args":["nc","31337"]}', "31337"),
    "a command in hexadecimal": (
        "{n} proctitle=6C73002F746D70",
        "123456 proctitle=726D002F746D70",
        "726D",
    ),
    "a user agent": ('{ip} "curl/8.0 100000"', '203.0.113.9 "curl/8.0 666666"', "666666"),
    "a URL's query": ("{ip} GET /?id=100000", "203.0.113.9 GET /?id=666666", "666666"),
    "a message in quotes": ('{ip} msg="saw 100000 of them"', '203.0.113.9 msg="saw 666666 of them"', "666666"),
    "a message in single quotes": ("{ip} said 'saw 100000 of'", "203.0.113.9 said 'saw 666666 of'", "666666"),
    "a status": ("{ip} status 200", "203.0.113.9 status 401", "401"),
    "a long status": ('{"ip":"{ip}","status":"50053"}', '{"ip":"203.0.113.9","status":"50126"}', "50126"),
    "an error's code": ("{n} error 80070002", "123456 error 80070005", "80070005"),
    "an error's code in hexadecimal": ("{n} error c0000064", "123456 error c000006d", "c000006d"),
    "a rule of a firewall": ('{ip} [ruleid "920350"]', '203.0.113.9 [ruleid "942100"]', "942100"),
    "an event's number": ("MSSQLSERVER 17137: by {n}", "MSSQLSERVER 15457: by 123456", "15457"),
    "the class of a CEF event": ("CEF:0|A|B|1|100045|x|5|src={ip}", "CEF:0|A|B|1|100666|x|5|src=203.0.113.9", "666|"),
    "a file's mode": ("{n} mode=0100755", "123456 mode=0104755", "0104"),
    "a port that listens": ("{n} listens on port 22", "123456 listens on port 4444", "4444"),
    "a port that is gone to": ("{n} dpt=40000", "123456 dpt=44444", "44444"),
    "a port behind an address": ("{n} to 203.0.113.9:443", "123456 to 203.0.113.9:4444", "4444"),
    "a private address": ("job {n} from {ip}", "job 123456 from 10.0.0.9", "10.0.0.9"),
    "this very machine": ("job {n} from {ip}", "job 123456 from 127.0.0.9", "127.0.0.9"),
    "the metadata service": ("job {n} to 169.254.7.7", "job 123456 to 169.254.169.254", "169.254.169.254"),
    "the metadata service in IPv6": ("{n} to fd00:ec2::7", "123456 to FD00:EC2:0::254", "254"),
    "the metadata service within IPv6": ("{n} to ::ffff:a9fe:707", "123456 to ::ffff:a9fe:a9fe", "a9fe:a9fe"),
    "an address with an octal part": ("{n} to 10.0.0.10", "123456 to 10.0.0.010", ".010"),
    "a size of another magnitude": ("{ip} sent {n} bytes", "203.0.113.9 sent 99123456 bytes", "99123456"),
    "a terabyte that looks like a time": ("{ip} sent 1500000000", "203.0.113.9 sent 1500000000000", "1500000000000"),
    "an amount of another unit": ("{ip} sent 12MB", "203.0.113.9 sent 12GB", "GB"),
    "a hash of another length": ("{n} is " + "0a" * 16, "123456 is " + "0a" * 20, "0a" * 20),
    "a host": ("{ip} is db-1.example", "203.0.113.9 is db-2.example", "db-2"),
    "a key of JSON": ('{"100000":{n}}', '{"666666":123456}', "666666"),
    "a known weakness": ("{ip} CVE-2020-10000", "203.0.113.9 CVE-2021-44228", "44228"),
}


@pytest.mark.parametrize(("form", "attack", "sign"), KEPT.values(), ids=KEPT)
def test_an_attack_that_differs_from_what_was_taught_in_what_may_matter_is_asked_about(
    form: str, attack: str, sign: str
) -> None:
    answering = Answering(finds(sign))
    teach(answering, form)
    (verdict,) = answering.window(attack)

    assert (verdict.label, verdict.cached) == ("critical", None)


def test_a_known_address_is_never_taken_for_another_of_its_class() -> None:
    answering = Answering(finds("203.0.113.7"), known_addresses=("203.0.113.7",))
    teach(answering, "login from {ip}")

    assert answering.window("login from 203.0.113.7")[0].label == "critical"


# The same to a careless eye, and other characters.
LOOK_ALIKES = {
    "digits of full width": "login of bob \uff11\uff12\uff13\uff14\uff15\uff16",
    "Arabic digits": "login of bob \u0661\u0662\u0663\u0664\u0665\u0666",
    "mathematical digits": "login of bob \U0001d7cf\U0001d7d0\U0001d7d1\U0001d7d2\U0001d7d3\U0001d7d4",
    "one digit of full width": "login of bob 12345\uff16",
    "raised digits": "login of bob \u00b9\u00b2\u00b3\u2074\u2075\u2076",
    "a letter of another alphabet": "login of b\u043eb 123456",
    "a combining accent": "login of bo\u0301b 123456",
    "a combining accent on a digit": "login of bob 12345\u03016",
    "a character of no width": "login of bo\u200bb 123456",
    "a character of no width in a number": "login of bob 123\u200b456",
    "a mark of direction": "login of \u202ebob 123456",
    "a NUL": "login of bob\x00 123456",
    "a NUL in a number": "login of bob 123\x00456",
    "a space that does not break": "login of bob\u00a0123456",
    "an ideographic space": "login of bob\u3000123456",
    "a line separator": "login of bob\u2028123456",
    "a tab": "login of bob\t123456",
    "a line feed": "login of bob\n123456",
    "two spaces": "login of bob  123456",
    "a space before": " login of bob 123456",
    "a space behind": "login of bob 123456 ",
    "capitals": "Login of bob 123456",
    "a separator": "login of bob,123456",
    "another separator": "login of bob;123456",
    "an escape": "login of bob \x1b[8m123456",
    "the mask itself": f"login of bob {OPEN}6 digits{CLOSE}",
    "half of a mask": f"login of bob {OPEN}123456",
    "half a character": "login of bob \ud800123456",
    "a longer number": "login of bob 1234567",
    "a number with a sign": "login of bob -123456",
    "a number with a point": "login of bob 123456.5",
    "hexadecimal digits": "login of bob 0x123456",
}


@pytest.mark.parametrize("attack", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_what_only_looks_like_what_was_taught_is_asked_about(attack: str) -> None:
    answering = Answering(lambda text: BENIGN if re.fullmatch(r"login of bob [0-9]{6}", text) else CRITICAL)
    teach(answering, "login of bob {n}")
    (verdict,) = answering.window(attack)

    assert (verdict.label, verdict.cached) == ("critical", None)


JSON_FORMS = {
    "another order of keys": '{"by":"bob","n":123456}',
    "a key twice": '{"n":123456,"by":"bob","by":"root"}',
    "a key twice before": '{"by":"root","n":123456,"by":"bob"}',
    "a level deeper": '{"n":123456,"by":{"by":"bob"}}',
    "a list": '{"n":123456,"by":["bob"]}',
    "many levels deeper": '{"n":123456,"by":' + '{"by":' * 200 + '"bob"' + "}" * 200 + "}",
    "a number that is a text": '{"n":"123456","by":"bob"}',
    "a space": '{"n": 123456,"by":"bob"}',
    "an escaped letter": '{"n":123456,"by":"\\u0062ob"}',
    "an escaped quote": '{"n":123456,"by":"bob\\""}',
    "a quote that is closed too early": '{"n":123456,"by":"bob","x":"","y":"z"}',
    "null": '{"n":null,"by":"bob"}',
    "a comment": '{"n":123456,/**/"by":"bob"}',
    "a key with a digit of full width": '{"n":12345\uff16,"by":"bob"}',
}


@pytest.mark.parametrize("attack", JSON_FORMS.values(), ids=JSON_FORMS)
def test_json_that_says_the_same_otherwise_or_something_else_is_asked_about(attack: str) -> None:
    answering = Answering(lambda text: BENIGN if re.fullmatch(r'\{"n":[0-9]{6},"by":"bob"\}', text) else CRITICAL)
    teach(answering, '{"n":{n},"by":"bob"}')
    (verdict,) = answering.window(attack)

    assert (verdict.label, verdict.cached) == ("critical", None)


QUOTES = {
    "an escaped quote": r'{"q":"a \" 100000 666666 \" b","ip":"%s"}',
    "an escaped backslash before the quote": r'{"q":"a \\","z":"100000 666666","ip":"%s"}',
    "a quote that nobody closes": '%s "a 100000 666666',
    "a single quote that nobody closes": "%s 'a 100000 666666",
    "a quote within the other kind": '%s "it\'s" \'say "100000 666666"\'',
    "an apostrophe": "%s 'it's 100000 666666'",
}


@pytest.mark.parametrize("form", QUOTES.values(), ids=QUOTES)
def test_what_stands_in_quotes_is_read_whole_however_the_quotes_are_written(form: str) -> None:
    answering = Answering(finds("666666"))
    teach(answering, (form % "{ip}").replace("666666", "200000"))
    (verdict,) = answering.window(form % "203.0.113.9")

    assert (verdict.label, verdict.cached) == ("critical", None)


@given(st.text("ab \"'\\", max_size=12))
@settings(max_examples=60)
def test_no_quotes_that_an_attacker_adds_hide_the_words_of_the_attack(noise: str) -> None:
    answering = Answering(finds("/etc/shadow"), ask_first=1)
    answering.window(f'{noise} 123456 read "/etc/hosts"', f'{noise} 123457 read "/etc/hosts"')

    assert answering.window(f'{noise} 123458 read "/etc/shadow"')[0].label == "critical"


LONG = {
    "behind the longest text": "a 123456 " + "x" * LONGEST_TEXT + " attack",
    "behind more masks than any key has": "a " + "123456 " * 300 + "attack",
    "as one number": "a " + "7" * 4000,
    "as one hexadecimal word": "a " + "7f" * 2000,
}


@pytest.mark.parametrize("attack", LONG.values(), ids=LONG)
def test_what_is_very_long_is_asked_about_every_time(attack: str) -> None:
    benign = attack.replace("attack", "report").replace("7", "8")
    answering = Answering(finds("attack", "77777777", "7f7f7f"), ask_first=1)
    answering.window(benign, benign)

    assert answering.window(attack)[0].label == "critical"


ENCODED = [b"rm -rf /tmp", b"id;uname -a", b"cat\x00/etc/passwd", b"<script>"]


@pytest.mark.parametrize("payload", ENCODED)
def test_a_command_in_hexadecimal_hides_among_no_identifiers(payload: bytes) -> None:
    length = 2 * len(payload)
    chance = Random(1)
    look_alikes = [f"{chance.getrandbits(8 * len(payload)) | 0x81:0{length}x}" for _ in range(TAUGHT)]
    answering = Answering(finds(payload.hex()))
    said = answering.say(*(f"session {identifier} ended" for identifier in look_alikes))

    assert said[-1].cached is not None
    assert answering.say(f"session {payload.hex()} ended")[0].label == "critical"


@given(st.from_regex(r"[ -~]{1,12}", fullmatch=True))
@settings(max_examples=200)
def test_no_word_of_what_an_attacker_types_is_masked_unless_it_is_of_a_kind_that_is(word: str) -> None:
    kinds = r"[0-9:.,/+-]+(ms|s|ns|us|B|kB|KB|MB|GB|KiB|MiB|GiB|min|sec|T|Z)?|[0-9a-fA-F:-]{3,}|0x[0-9a-fA-F]+"
    masked = Masking().mask(f"x {word} y")
    assert masked is not None

    for begin, end in masked.spans:
        assert re.fullmatch(kinds, f"x {word} y"[begin:end])


def test_an_attacker_who_teaches_and_then_changes_a_masked_word_is_found_by_an_audit_and_taken_back() -> None:
    answering = Answering(finds("203.0.113.66"), audit_rate=0.01)
    teach(answering, "login of bob from {ip}")
    sent, superseded = 0, []
    while not superseded:
        superseded = [verdict for verdict in answering.window("login of bob from 203.0.113.66") if verdict.revision]
        sent += 1

    assert sent < 500
    assert len(superseded) == sent - 1  # the last was the audit
    assert {verdict.label for verdict in superseded} == {"critical"}
    assert answering.window("login of bob from 203.0.113.66")[0].cached is None


def test_a_template_whose_meaning_drifts_slowly_is_found_long_before_all_of_it_has_changed() -> None:
    """Of the first hundred events one is an attack, of the next hundred two, and so on."""
    attack_from = 0

    def answer(text: str) -> Opinion:
        return CRITICAL if int(text.split()[2]) % 100 < attack_from else BENIGN

    answering = Answering(answer, audit_rate=0.02)
    answering.say(*(f"transfer of {number} done" for number in range(100_000, 100_100)))
    attacks: set[str] = set()
    labels: dict[str, str] = {}
    while not answering.cache.counts["disagreements"]:
        attack_from += 1
        for number in range(100_000 + 100 * attack_from, 100_100 + 100 * attack_from):
            text = f"transfer of {number} done"
            if answer(text) is CRITICAL:
                attacks.add(text)
            labels.update((verdict.text, verdict.label) for verdict in answering.window(text))

    assert attack_from < 30
    assert len(attacks) > 1
    assert {labels[text] for text in attacks} == {"critical"}


def test_nobody_dodges_audits_by_the_ids_that_he_gives_his_events() -> None:
    for own_id in ("0", "o.1", "x" * 200, "", "\ud800"):
        answering = Answering(ask_first=1, audit_rate=0.1)
        answering.window("job 100000", ids=[own_id])
        for number in range(100_001, 100_400):
            answering.window(f"job {number}", ids=[own_id])

        assert 15 < answering.cache.counts["audits"] < 80


def test_nobody_learns_from_one_gateway_which_ids_another_does_not_audit() -> None:
    ids = [f"mine.{number}" for number in range(2000)]

    def dodged(secret: bytes, ids: list[str]) -> list[str]:
        answering = Answering(secret=secret, ask_first=1, audit_rate=0.1)
        answering.window("job 100000", ids=["first"])
        return [each for each in ids if answering.window("job 100001", ids=[each])[0].cached is not None]

    safe_here = dodged(b"here", ids)
    assert 0.05 < 1 - len(dodged(b"there", safe_here)) / len(safe_here) < 0.15


def words(count: int) -> list[str]:
    """So many words without a digit, none twice."""
    letters = "bcdfghjklm"
    return ["".join(letters[int(digit)] for digit in f"{number:05}") for number in range(count)]


def test_a_flood_of_templates_that_come_once_displaces_none_that_is_in_use() -> None:
    answering = Answering(ask_first=1, max_entries=100)
    good = [f"good {word} 100000" for word in words(70)]
    for _ in range(3):
        answering.say(*good)
    answering.say(*(f"flood {word}" for word in words(5000)))

    assert all(verdict.cached for verdict in answering.say(*good))


@pytest.mark.parametrize("hits", [1, 3, 10])
def test_a_flood_of_templates_that_are_hit_a_few_times_each_displaces_none_that_was_hit_more_often(hits: int) -> None:
    answering = Answering(ask_first=1, max_entries=100)
    good = [f"good {word} 100000" for word in words(70)]
    for _ in range(6 * hits):
        answering.say(*good)
    for word in words(900 // hits):  # nobody needs the good ones meanwhile
        answering.say(*[f"flood {word}"] * (hits + 1))

    assert all(verdict.cached for verdict in answering.say(*good))


def test_a_flood_does_not_make_the_gateway_forget_what_it_refused() -> None:
    answering = Answering(finds("100001"), ask_first=2)
    answering.say("job 100000", "job 100001")
    answering.say(*(f"flood {word}" for word in words(3000)))
    said = answering.say(*(f"job {number}" for number in range(100_002, 100_010)))

    assert {verdict.cached for verdict in said} == {None}


def test_a_template_that_was_refused_is_not_taught_by_what_comes_later() -> None:
    answering = Answering(finds("100003"), ask_first=5)
    said = answering.say(*(f"job {number}" for number in range(100_000, 100_100)))

    assert {verdict.cached for verdict in said} == {None}


def test_the_same_line_again_and_again_teaches_nothing_about_others() -> None:
    answering = Answering(finds("100666"), ask_first=3)
    answering.say(*["job 100000"] * 1000)

    assert answering.say("job 100666")[0].label == "critical"


def test_json_escapes_an_attack_as_its_sender_wrote_it() -> None:
    payload = "'; DROP TABLE users; -- 123456 \"\\"
    answering = Answering(finds("DROP"), ask_first=1)
    answering.say(json.dumps({"id": 123456, "q": "SELECT 123456"}), json.dumps({"id": 123457, "q": "SELECT 123456"}))

    assert answering.say(json.dumps({"id": 123458, "q": payload}))[0].label == "critical"
