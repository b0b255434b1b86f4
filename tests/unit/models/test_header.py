"""What stands in front of a message is taken off, and nothing else is."""

import re
from datetime import UTC, datetime
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.header import Header, split, split_all


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2026-11-21T12:00:00")

FORMS = {
    "Nov 21 06:55:46 alpha sshd[24200]: Failed password for root from 192.0.2.7 port 22 ssh2": Header(
        "sshd: Failed password for root from 192.0.2.7 port 22 ssh2",
        ms("2026-11-21T06:55:46"),
        "alpha",
        "sshd",
        "24200",
    ),
    "<34>Oct  1 22:14:15 gate su: 'su root' failed for lee on /dev/pts/8\n": Header(
        "su: 'su root' failed for lee on /dev/pts/8", ms("2026-10-01T22:14:15"), "gate", "su", None, 2
    ),
    "<34>Oct 11 22:14:15 su[12]: no host was written": Header(
        "su: no host was written", ms("2026-10-11T22:14:15"), None, "su", "12", 2
    ),
    "Oct 11 22:14:15 fe80::1 dhcpd: DHCPREQUEST for 10.0.0.9": Header(
        "dhcpd: DHCPREQUEST for 10.0.0.9", ms("2026-10-11T22:14:15"), "fe80::1", "dhcpd"
    ),
    "Jun 14 15:16:01 box ftpd(pam_unix)[199]: check pass; user unknown": Header(
        "ftpd(pam_unix): check pass; user unknown", ms("2026-06-14T15:16:01"), "box", "ftpd(pam_unix)", "199"
    ),
    "Jun 14 15:16:01 box klogd 1.4.1: stopped.": Header("klogd 1.4.1: stopped.", ms("2026-06-14T15:16:01"), "box"),
    "Jul  1 09:00:55 mac-10-0-0-9 kernel[0]: en0: link<0>(0x0)::up": Header(
        "kernel: en0: link<0>(0x0)::up", ms("2026-07-01T09:00:55"), "mac-10-0-0-9", "kernel", "0"
    ),
    "Jul  1 09:00:55 mac launchd[1] (com.example.agent.77): exited": Header(
        "launchd (com.example.agent.77): exited", ms("2026-07-01T09:00:55"), "mac", "launchd", "1"
    ),
    "Jul  1 09:00:55 mac --- last message repeated 3 times ---": Header(
        "--- last message repeated 3 times ---", ms("2026-07-01T09:00:55"), "mac"
    ),
    "Aug 24 05:34:00 CST 2025 mill proc[10]: the year stands behind": Header(
        "proc: the year stands behind", ms("2025-08-24T05:34:00"), "mill", "proc", "10"
    ),
    "Jan 18 11:07:53 siem CEF:0|Example|Wall|1|100|worm|10|": Header(
        "CEF:0|Example|Wall|1|100|worm|10|", ms("2026-01-18T11:07:53"), "siem", "CEF"
    ),
    "<14>Jan  2 10:00:00 PA-1 1,2026/01/02 10:00:00,0011,TRAFFIC": Header(
        "1,2026/01/02 10:00:00,0011,TRAFFIC", ms("2026-01-02T10:00:00"), "PA-1", None, None, 6
    ),
    "<165>1 2003-10-11T22:14:15.003Z mill.example.com evntslog 77 ID47 - \ufeffIt rains": Header(
        "evntslog: ID47 It rains", ms("2003-10-11T22:14:15.003"), "mill.example.com", "evntslog", "77", 5
    ),
    r'<165>1 2003-10-11T22:14:15+02:00 mill evnt - - [ex@32473 a="1]" b="\"]"][x@1] It rains': Header(
        r'evnt: [ex@32473 a="1]" b="\"]"][x@1] It rains', ms("2003-10-11T20:14:15"), "mill", "evnt", None, 5
    ),
    '<13>1 2026-11-21T12:00:00.123456-07:30 gw app 77 - [timeQuality tzKnown="1" isSynced="0"] up': Header(
        "app: up", ms("2026-11-21T19:30:00.123"), "gw", "app", "77", 5
    ),
    '<13>1 - - - - - [x@1 a="does not close] up': Header('[x@1 a="does not close] up', severity=5),
    '<13>1 - - - - - [x@1 a="b"]': Header('[x@1 a="b"]', severity=5),
    "1 2026-11-21T12:00:00Z gw app - - - no priority": Header(
        "app: no priority", ms("2026-11-21T12:00:00"), "gw", "app"
    ),
    "<189>29: *Mar  1 18:46:11.123 UTC: %SYS-5-CONFIG_I: Configured from console": Header(
        "%SYS-5-CONFIG_I: Configured from console", ms("2026-03-01T18:46:11.123"), None, "%SYS-5-CONFIG_I", None, 5
    ),
    "<189>29: r1: .Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured": Header(
        "%SYS-5-CONFIG_I: Configured", ms("2026-03-01T18:46:11"), "r1", "%SYS-5-CONFIG_I", None, 5
    ),
    "<189>29: 00:12:34: %LINK-3-UPDOWN: Interface down": Header(
        "%LINK-3-UPDOWN: Interface down", None, None, "%LINK-3-UPDOWN", None, 5
    ),
    "<166>Jan 01 2024 10:00:00 fw1 : %ASA-6-302013: Built outbound": Header(
        "%ASA-6-302013: Built outbound", ms("2024-01-01T10:00:00"), "fw1", "%ASA-6-302013", None, 6
    ),
    "<166>Jan 01 2024 10:00:00: %ASA-6-302013: Built outbound": Header(
        "%ASA-6-302013: Built outbound", ms("2024-01-01T10:00:00"), None, "%ASA-6-302013", None, 6
    ),
    "2026-11-21T12:00:00.5+01:00 web1 sshd[12]: Connection closed": Header(
        "sshd: Connection closed", ms("2026-11-21T11:00:00.500"), "web1", "sshd", "12"
    ),
    "2026-11-21T12:00:00Z WARN pool: exhausted": Header("WARN pool: exhausted", ms("2026-11-21T12:00:00")),
    "2026-11-21 12:00:00,123 INFO [main] com.example.Boot - started": Header(
        "INFO [main] com.example.Boot - started", ms("2026-11-21T12:00:00.123")
    ),
    "2026-11-21 12:00:00 web1 cron[7]: started": Header(
        "cron: started", ms("2026-11-21T12:00:00"), "web1", "cron", "7"
    ),
    "2026-11-21 12:00:00.123 UTC [1234] LOG:  checkpoint starting": Header(
        "LOG:  checkpoint starting", ms("2026-11-21T12:00:00.123"), None, None, "1234"
    ),
    "2026/11/21 12:00:00 [error] 1234#99: *5 open() failed": Header(
        "[error] *5 open() failed", ms("2026-11-21T12:00:00"), None, None, "1234", 3
    ),
    "[Sun Dec 04 04:47:44 2005] [notice] jk2_init() found child": Header(
        "[notice] jk2_init() found child", ms("2005-12-04T04:47:44"), None, None, None, 5
    ),
    "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 357:tid 4328] [client 192.0.2.9] File missing": Header(
        "[core:error] [client 192.0.2.9] File missing", ms("2011-09-09T10:42:29.902"), None, None, "357", 3
    ),
    '192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 5': Header(
        '192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 5'
    ),
    '{"time": "2026-11-21T12:00:00Z", "event": "login"}': Header('{"time": "2026-11-21T12:00:00Z", "event": "login"}'),
    "<13>{}": Header("{}", severity=5),
    "sshd[12]: no stamp at all": Header("sshd: no stamp at all", None, None, "sshd", "12"),
    "<30>dnsmasq: no stamp": Header("dnsmasq: no stamp", None, None, "dnsmasq", None, 6),
    "Error: not a program": Header("Error: not a program"),
    "<999>x": Header("<999>x"),
    "<13>": Header("<13>", severity=5),
    "<13>Jan  2 00:00:00 ": Header("<13>Jan  2 00:00:00", ms("2026-01-02T00:00:00"), severity=5),
    "Jan 99 00:00:00 box app: x": Header("Jan 99 00:00:00 box app: x"),
    "Jan 12 24:00:00 box app: x": Header("Jan 12 24:00:00 box app: x"),
    "0001-01-01T00:00:00Z app: x": Header("0001-01-01T00:00:00Z app: x"),
    "2026-02-30T00:00:00Z app: x": Header("2026-02-30T00:00:00Z app: x"),
    "": Header(""),
    " \n": Header(" \n"),
}


@pytest.mark.parametrize("line", FORMS)
def test_a_line_is_split_as_its_form_says(line: str) -> None:
    assert split(line, NOW) == FORMS[line]


def test_lines_that_come_together_are_split_as_each_alone() -> None:
    assert split_all(FORMS, NOW) == list(FORMS.values())


@pytest.mark.parametrize("rest", ["Nov 21 06:55:46 box app: x", "x", "{}"])
def test_a_priority_is_a_number_below_192_as_it_is_or_in_three_digits(rest: str) -> None:
    written = {f"{n:0{width}}" for n in range(1000) for width in (1, 2, 3, 4)}

    read = {text: split(f"<{text}>{rest}", NOW).severity for text in written}

    priorities = {text: n % 8 for n in range(192) for text in (str(n), f"{n:03}")}
    assert {text: severity for text, severity in read.items() if severity is not None} == priorities


@pytest.mark.parametrize(
    ("stamp", "now", "meant"),
    [
        ("Dec 31 23:59:59", "2027-01-01T00:00:05", "2026-12-31T23:59:59"),
        ("Jan  1 00:00:05", "2026-12-31T23:59:59", "2027-01-01T00:00:05"),
        ("Mar  1 00:00:00", "2026-11-21T00:00:00", "2026-03-01T00:00:00"),
        ("Dec 24 00:00:00", "2026-11-21T00:00:00", "2025-12-24T00:00:00"),
        ("Feb 29 00:00:00", "2026-11-21T00:00:00", "2024-02-29T00:00:00"),
        ("Feb 29 00:00:00", "2028-03-01T00:00:00", "2028-02-29T00:00:00"),
    ],
)
def test_a_stamp_without_a_year_gets_the_latest_that_is_not_ahead_of_now(stamp: str, now: str, meant: str) -> None:
    assert split(f"{stamp} box app: x", ms(now)).occurred_at_ms == ms(meant)


def test_the_year_does_not_depend_on_what_was_split_before() -> None:
    line = "Dec 31 23:59:59 box app: x"

    assert split(line, ms("2026-12-31T23:59:59")).occurred_at_ms == ms("2026-12-31T23:59:59")
    assert split(line, ms("2030-01-01T00:00:00")).occurred_at_ms == ms("2029-12-31T23:59:59")
    assert split(line, ms("2026-12-31T23:59:59")).occurred_at_ms == ms("2026-12-31T23:59:59")


fragments = st.sampled_from(
    [
        "<34>",
        "<",
        ">",
        "1 ",
        "Nov 21 06:55:46 ",
        "Nov  1 06:55:46 ",
        "2026-11-21T12:00:00.1Z ",
        "2026-11-21 12:00:00 ",
        "29: ",
        "*",
        ": ",
        " : ",
        "sshd[12]: ",
        "sshd: ",
        "box ",
        "[",
        "]",
        "\\",
        '"',
        "- ",
        '[x@1 a="b"] ',
        "{",
        " ",
        "[Sun Dec 04 04:47:44 2005] ",
        "[notice] ",
        "[pid 7] ",
        "(",
        ")",
        "\ufeff",
        "%ASA-6-1: ",
        "\0",
        "\n",
        "a=b ",
    ]
)
lines = st.one_of(st.text(), st.lists(st.one_of(fragments, st.text(max_size=8))).map("".join))


@given(lines, st.integers(0, 4_102_444_800_000))
def test_any_text_is_split_and_its_end_is_kept(line: str, now_ms: int) -> None:
    header = split(line, now_ms)

    assert bool(header.body) == bool(line)
    assert header.occurred_at_ms is None or header.occurred_at_ms >= 0
    assert header.severity is None or 0 <= header.severity <= 7
    behind_priority = line if header.severity is None else re.sub(r"^<\d+>", "", line)
    last = re.findall(r"[^\s\[\]:<>]+", behind_priority.rstrip("\r\n\t \0"))[-1:]
    kept = " ".join(filter(None, (header.body, header.host, header.app, header.process_id)))
    assert all(word in kept for word in last) or header.occurred_at_ms is not None


@given(st.text(alphabet=st.characters(exclude_characters="\r\n\0 \t"), min_size=1), st.text())
def test_what_no_form_fits_is_body_as_it_stands(word: str, rest: str) -> None:
    line = f"~{word} {rest}~"

    assert split(line, NOW) == Header(line)


@given(st.integers(1, 99_999), st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), max_size=200))
def test_a_message_survives_under_every_common_front(process_id: int, message: str) -> None:
    message = message.strip() or "x"
    for front in (
        f"<13>Nov 21 06:55:46 box app[{process_id}]: ",
        f"Nov  1 06:55:46 box app[{process_id}]: ",
        f"<13>1 2026-11-21T12:00:00Z box app {process_id} - - ",
        f"2026-11-21T12:00:00Z box app[{process_id}]: ",
    ):
        header = split(front + message, NOW)
        assert header.body == f"app: {message}" or "\0" in message
        assert (header.host, header.app, header.process_id) == ("box", "app", str(process_id))


@pytest.mark.parametrize(
    "hostile",
    [
        "<13>1 - - - - - [" + 'a="' * 4000,
        "<13>1 - - - - - " + "[a]" * 3000 + "[",
        "1: " + "a" * 8000,
        "Nov 21 06:55:46 " + "a:" * 4000,
        "Nov 21 06:55:46 " + "a" * 8000,
        "2026-11-21T12:00:00Z " + "a " * 4000,
        "<13>" + "[" * 8000,
    ],
)
def test_hostile_lines_of_the_longest_length_cost_no_more_than_milliseconds(hostile: str) -> None:
    best_s = min(_seconds(hostile) for _ in range(5))

    assert best_s < 0.02


def _seconds(line: str) -> float:
    began = perf_counter()
    split(line, NOW)
    return perf_counter() - began
