"""The SIEM sink against a real rsyslog: what it parses, and what a restart costs."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
import trustme

from dataflows.backoff import Backoff
from dataflows.connectors import cef
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.rfc5424 import Rfc5424, message
from dataflows.connectors.siem import SiemCarrier
from dataflows.connectors.tls import client_context
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict
from tests.fakes.verdicts import verdict
from tests.real.intake import wait_until
from tests.real.rsyslog import Rsyslog

pytestmark = pytest.mark.server("rsyslogd")

STYLE = Rfc5424(gateway="edge-7")
ODD = 'a "quoted" ] bracket, a \\ backslash, größer and <13>'
Start = Callable[..., Rsyslog]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Rsyslog] = []

    def begin(certificates: Path | None = None) -> Rsyslog:
        found = Rsyslog(tmp_path / "rsyslog", certificates)
        running.append(found)
        found.start()
        return found

    yield begin
    for found in running:
        found.stop(signal.SIGKILL)


def sink(tmp_path: Path, carrier: Callable[[], SiemCarrier]) -> CourierSink[Verdict]:
    return CourierSink(
        "siem",
        carrier,
        lambda verdicts: [message(found, STYLE) for found in verdicts],
        tmp_path / "siem.sqlite3",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.05, most_s=0.2)),
    )


def verdicts(start: int, stop: int) -> list[Verdict]:
    return [verdict(id=EventId(f"o.{n}")) for n in range(start, stop)]


def ids(server: Rsyslog) -> list[str]:
    return [found["$!"]["rfc5424-sd"]["verdict@32473"]["id"] for found in server.messages()]


def test_rsyslog_reads_back_what_was_written(start: Start, tmp_path: Path) -> None:
    server = start()

    with closing(sink(tmp_path, lambda: SiemCarrier("127.0.0.1", server.port))) as outlet:
        outlet.deposit([verdict(text=ODD, fields={"target": (ODD,)})])

    (found,) = wait_until(server.messages, "the message")
    data = found["$!"]["rfc5424-sd"]["verdict@32473"]
    assert found["msg"] == ODD
    assert (found["hostname"], found["programname"], found["msgid"]) == ("edge-7", "headwater", "critical")
    assert (found["syslogseverity"], found["syslogfacility"]) == ("2", "13")
    assert found["timereported"].startswith("2023-11-14T22:13:20.123")
    assert (data["id"], data["label"], data["confidence"], data["route"]) == ("o.1", "critical", "0.9500", "accepted")
    assert data["host"] == "web-1"


def test_rsyslog_reads_cef_behind_its_header(start: Start) -> None:
    server = start()
    carrier = SiemCarrier("127.0.0.1", server.port)

    carrier.deliver([cef.message(verdict(), cef.Cef(gateway="edge-7"))])
    carrier.close()

    (found,) = wait_until(server.messages, "the message")
    assert (found["hostname"], found["syslogtag"], found["syslogseverity"]) == ("edge-7", "CEF:", "2")
    assert found["msg"].startswith(
        "0|Headwater|Headwater|1|critical|critical event|10|rt=1700000000123 externalId=o.1 "
    )


def test_rsyslog_sees_of_which_gateway_each_of_the_centres_verdicts_is(start: Start) -> None:
    server = start()
    style = cef.Cef(gateway="centre")
    said = [verdict(gateway="edge-7", revision=1000), verdict(gateway="edge-9"), verdict()]

    with closing(SiemCarrier("127.0.0.1", server.port)) as carrier:
        carrier.deliver([cef.message(each, style) for each in said])

        found = wait_until(lambda: len(server.messages()) == 3 and server.messages(), "the messages")
    assert [each["hostname"] for each in found] == ["edge-7", "edge-9", "centre"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_rsyslog_costs_no_verdict(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    server = start()
    with closing(sink(tmp_path, lambda: SiemCarrier("127.0.0.1", server.port))) as outlet:
        outlet.deposit(verdicts(0, 200))
        outlet.deposit(verdicts(200, 400))
        server.stop(number)
        outlet.deposit(verdicts(400, 600))

        server.start()
        wanted = {f"o.{n}" for n in range(600)}
        wait_until(lambda: wanted <= set(ids(server)), "every verdict")


def test_verdicts_reach_rsyslog_over_tls_with_certificates_on_both_sides(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, subject in (("server", "127.0.0.1"), ("client", "edge-7")):
        issued = authority.issue_cert(subject, common_name=subject)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    server = start(folder)
    tls = client_context("siem", *(str(folder / name) for name in ("ca.pem", "client.pem", "client.key")))

    with closing(sink(tmp_path, lambda: SiemCarrier("127.0.0.1", server.port, tls))) as outlet:
        outlet.deposit(verdicts(0, 100))
        wait_until(lambda: {f"o.{n}" for n in range(100)} <= set(ids(server)), "every verdict")
