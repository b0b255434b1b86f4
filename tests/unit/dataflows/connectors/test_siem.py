import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import pytest
import trustme

from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.siem import SiemCarrier
from models.contracts.errors import UnavailableError
from tests.fakes.syslog_receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"<14>1 - - - - - - %d" % n for n in range(start, stop)]


def deliver(carrier: SiemCarrier, payloads: list[bytes]) -> None:
    """Deliver as the courier does: again after each failure."""
    deadline = monotonic() + 20
    while True:
        try:
            carrier.deliver(payloads)
        except UnavailableError:
            assert monotonic() < deadline
            sleep(0.02)  # the courier's backoff
        else:
            return


def test_messages_arrive_whole_and_in_order_line_breaks_included(receiver: Receiver) -> None:
    carrier = SiemCarrier("127.0.0.1", receiver.port)

    carrier.deliver([b"one", b"two\nlines", "größer".encode()])

    receiver.until(lambda: len(receiver.messages) == 3)
    assert receiver.messages == [b"one", b"two\nlines", "größer".encode()]
    carrier.close()


def test_a_receiver_that_is_away_is_unavailable_by_name(receiver: Receiver) -> None:
    receiver.stop()

    with pytest.raises(
        UnavailableError, match=rf"siem 127\.0\.0\.1:{receiver.port}: Connection refused; what is to be sent"
    ):
        SiemCarrier("127.0.0.1", receiver.port).deliver([b"one"])


def test_what_a_receiver_took_and_did_not_read_before_it_died_is_sent_again(receiver: Receiver) -> None:
    receiver.reads = False
    carrier = SiemCarrier("127.0.0.1", receiver.port)
    carrier.deliver(numbered(0, 10))
    receiver.stop()
    receiver.reads = True
    receiver.start()

    deliver(carrier, numbered(10, 12))

    receiver.until(lambda: len(receiver.messages) >= 12)
    assert receiver.messages == numbered(0, 12)
    carrier.close()


def test_an_idle_courier_sends_again_without_waiting_for_the_next_event(receiver: Receiver, tmp_path: Path) -> None:
    receiver.reads = False
    outlet: CourierSink[bytes] = CourierSink(
        "siem",
        lambda: SiemCarrier("127.0.0.1", receiver.port),
        list,
        tmp_path / "backlog",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.05, most_s=0.1)),
    )
    with closing(outlet):
        outlet.deposit([b"the last for a long time"])
        receiver.until(lambda: receiver.connected > 0)  # or it is no connection that dies
        receiver.stop()
        receiver.reads = True
        receiver.start()

        receiver.until(lambda: bool(receiver.messages))
        assert receiver.messages == [b"the last for a long time"]


def test_what_a_connection_has_outlived_is_not_sent_again(receiver: Receiver) -> None:
    now = [0.0]
    carrier = SiemCarrier("127.0.0.1", receiver.port, resend_s=5.0, clock=lambda: now[0])
    carrier.deliver([b"old"])
    now[0] = 6.0
    carrier.deliver([b"young"])
    receiver.until(lambda: len(receiver.messages) == 2)
    receiver.stop()
    receiver.start()

    deliver(carrier, [b"new"])

    receiver.until(lambda: len(receiver.messages) == 4)
    assert receiver.messages == [b"old", b"young", b"young", b"new"]
    carrier.close()


def test_what_is_kept_is_bounded_on_a_connection_that_has_proven_itself(receiver: Receiver) -> None:
    now = [0.0]
    carrier = SiemCarrier("127.0.0.1", receiver.port, resend_bytes=250, clock=lambda: now[0])
    carrier.deliver([b"proof"])
    now[0] = 6.0
    for n in range(10):
        carrier.deliver([b"%d" % n * 100])

    assert carrier._kept_bytes <= 250
    carrier.close()


def test_a_listener_that_takes_connections_and_slams_them_swallows_nothing_that_counted(receiver: Receiver) -> None:
    receiver.slams = True
    carrier = SiemCarrier("127.0.0.1", receiver.port, resend_bytes=300, resend_s=0.5)
    counted = []
    for payload in numbered(0, 40):
        try:
            carrier.deliver([payload])
        except UnavailableError:
            continue
        counted.append(payload)
    receiver.slams = False

    deliver(carrier, [b"last"])

    deadline = monotonic() + 20
    while b"last" not in receiver.messages:  # its connection may have been the last that was slammed
        assert monotonic() < deadline
        deliver(carrier, [])  # as an idle courier asks
        sleep(0.02)
    assert set(counted) <= set(receiver.messages)
    assert len(counted) < 40
    carrier.close()


def test_a_receiver_that_stops_reading_is_unavailable_after_a_bounded_wait(receiver: Receiver) -> None:
    receiver.reads = False
    carrier = SiemCarrier("127.0.0.1", receiver.port, stall_s=0.3)

    began = monotonic()
    with pytest.raises(UnavailableError, match=r"timed out|not acknowledged"):
        carrier.deliver([b"x" * (64 << 20)])

    assert monotonic() - began < 10
    carrier.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *, clients_too: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    if clients_too:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def client_context(authority: trustme.CA, *, name: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if name:
        authority.issue_cert(name).configure_cert(context)
    return context


def test_messages_arrive_over_tls_with_a_client_certificate_and_again_after_a_restart(authority: trustme.CA) -> None:
    receiver = Receiver(server_context(authority, clients_too=True))
    carrier = SiemCarrier("127.0.0.1", receiver.port, client_context(authority, name="edge-7"))
    carrier.deliver(numbered(0, 3))
    receiver.until(lambda: len(receiver.messages) == 3)
    receiver.stop()
    receiver.start()

    deliver(carrier, numbered(3, 5))

    receiver.until(lambda: len(set(receiver.messages)) == 5)
    assert receiver.messages[-5:] == numbered(0, 5)
    carrier.close()
    receiver.stop()


def test_a_receiver_that_nobody_vouches_for_gets_nothing(authority: trustme.CA) -> None:
    receiver = Receiver(server_context(trustme.CA()))

    with pytest.raises(UnavailableError, match="its certificate is refused: unable to get local issuer certificate"):
        SiemCarrier("127.0.0.1", receiver.port, client_context(authority)).deliver([b"one"])

    assert receiver.messages == []
    receiver.stop()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_receiver_that_wants_a_certificate_we_do_not_have_counts_nothing_as_delivered(
    authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    receiver = Receiver(server_context(authority, clients_too=True))
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version

    with pytest.raises(UnavailableError, match="TLS: "):
        SiemCarrier("127.0.0.1", receiver.port, context).deliver([b"one"])

    assert receiver.messages == []
    receiver.stop()
