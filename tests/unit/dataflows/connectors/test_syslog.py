"""Listeners take what senders send, bound what they hold, and say what went wrong."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from dataflows.connectors import syslog
from dataflows.connectors.group_commit import SOURCE_MAX_BYTES, Delivery, GroupCommit, Refusal
from dataflows.connectors.spool import Arrival, Spool, SpoolReader
from dataflows.connectors.syslog import TcpListeners, TcpSource, UdpListener, UdpSource
from dataflows.connectors.tls import server_context
from models.contracts.errors import UnavailableError
from tests.real.intake import wait_until


class Intake:
    """Listeners, a group commit and a spool in this process."""

    def __init__(self, directory: Path, max_bytes: int = 64 << 20) -> None:
        self.reader = SpoolReader(directory / "spool.sqlite3")
        self.commit = GroupCommit(Spool(directory / "spool.sqlite3", max_bytes))
        self._listeners: list[UdpListener | TcpListeners] = []
        self._closed = False

    def bind_udp(self, max_event_bytes: int = 8192, receive_buffer_bytes: int = 1 << 20) -> UdpListener:
        source = UdpSource(
            name="udp",
            host="127.0.0.1",
            port=0,
            max_event_bytes=max_event_bytes,
            receive_buffer_bytes=receive_buffer_bytes,
        )
        listener = UdpListener(source, self.commit)
        self._listeners.append(listener)
        return listener

    def udp(self, max_event_bytes: int = 8192) -> int:
        listener = self.bind_udp(max_event_bytes)
        listener.start()
        return listener.port

    def tcp(self, tls: ssl.SSLContext | None = None, max_connections: int = 8, idle_timeout_s: float = 3600.0) -> int:
        source = TcpSource(
            name="tcp",
            host="127.0.0.1",
            port=0,
            max_event_bytes=100,
            max_connections=max_connections,
            idle_timeout_s=idle_timeout_s,
            tls=tls,
        )
        listeners = TcpListeners([source], self.commit)
        listeners.start()
        self._listeners.append(listeners)
        return listeners.ports["tcp"]

    def records(self) -> list[bytes]:
        return [record for row in self.reader.read(0, 100_000) for record in row.arrival.records]

    def wait_for(self, *records: bytes) -> None:
        wait_until(lambda: self.records() == list(records), f"{records} in the spool")

    def incidents(self) -> dict[tuple[str, str], int]:
        return dict(self.reader.status().counters.incidents)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for listener in self._listeners:
                listener.stop()
            self.commit.close()


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    intake = Intake(tmp_path)
    intake.commit.start()
    yield intake
    intake.close()
    intake.reader.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_datagrams_are_records_without_their_line_ends(intake: Intake) -> None:
    port = intake.udp(max_event_bytes=100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (b"<13>one\n", b"<13>two\0", b"", b"\n", b"x" * 100, b"y" * 101, b"z" * 5000):
            sender.sendto(datagram, ("127.0.0.1", port))

    intake.wait_for(b"<13>one", b"<13>two", b"x" * 100, b"y" * 101, b"z" * 101)


def test_a_flood_of_blank_datagrams_is_taken_in_bounded_portions(intake: Intake) -> None:
    listener = intake.bind_udp()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(600):
            sender.sendto(b"\n", ("127.0.0.1", listener.port))

    assert listener._receive()
    assert listener._receive(), "the rest"
    assert not listener._receive()
    listener.start()  # to be stopped


def test_what_the_kernel_drops_is_counted(intake: Intake) -> None:
    sent = 500
    listener = intake.bind_udp(receive_buffer_bytes=4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(sent):
            sender.sendto(b"x" * 1000, ("127.0.0.1", listener.port))
    listener.start()

    def all_counted() -> bool:
        counters = intake.reader.status().counters
        lost = counters.losses.get(("udp", "receive-buffer"), 0)
        return lost > 0 and counters.events.get("udp", 0) + lost == sent

    wait_until(all_counted, "every datagram stored or counted")


def test_what_the_kernel_drops_is_counted_while_there_is_no_room_for_more(tmp_path: Path) -> None:
    intake = Intake(tmp_path)
    intake.commit.offer(Delivery(Arrival("udp", 7, [b"x" * SOURCE_MAX_BYTES]), Refusal.LOSE))
    listener = intake.bind_udp(receive_buffer_bytes=4096)
    listener.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"x" * 1000, ("127.0.0.1", listener.port))
    wait_until(lambda: intake.commit._losses["udp", "receive-buffer"] > 0, "a count before anything is stored")

    intake.commit.start()
    intake.close()
    counters = intake.reader.status().counters
    assert counters.events["udp"] + counters.losses["udp", "receive-buffer"] == 101
    intake.reader.close()


def test_what_has_arrived_when_the_end_comes_is_stored(intake: Intake) -> None:
    port = intake.udp()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for n in range(300):
            sender.sendto(b"%d" % n, ("127.0.0.1", port))
    intake.close()

    assert intake.records() == [b"%d" % n for n in range(300)]


def test_a_stream_of_lines_and_counted_messages_is_cut_into_records(intake: Intake) -> None:
    with connect(intake.tcp()) as sender:
        sender.sendall(b"9 <13>one\r\n<13>" + b"x" * 200 + b"\n9 <13>th\nee12 <13>and four<13>last")
        sender.shutdown(socket.SHUT_WR)
        intake.wait_for(b"<13>one", b"<13>" + b"x" * 97, b"<13>th\nee", b"<13>and four", b"<13>last")

    assert intake.incidents() == {}


def test_a_broken_count_ends_the_connection_and_nothing_before_it(intake: Intake) -> None:
    with connect(intake.tcp()) as sender:
        sender.sendall(b"7 <13>one1x34 <13>more")
        wait_until(lambda: _ended(sender), "the end of the connection")

    intake.wait_for(b"<13>one")
    wait_until(lambda: intake.incidents().get(("tcp", "framing-broken")) == 1, "the count")


def test_a_message_cut_off_by_the_end_of_its_connection_is_counted(intake: Intake) -> None:
    with connect(intake.tcp()) as sender:
        sender.sendall(b"9 <13>whole50 <13>half")
    wait_until(lambda: intake.incidents() == {("tcp", "messages-cut-off"): 1}, "the count")

    assert intake.records() == [b"<13>whole"]


def test_one_connection_too_many_is_closed_and_the_others_go_on(intake: Intake) -> None:
    port = intake.tcp(max_connections=2)
    with connect(port) as one, connect(port) as two:
        one.sendall(b"<13>a\n")
        two.sendall(b"<13>b\n")
        wait_until(lambda: len(intake.records()) == 2, "both senders")
        with connect(port) as three:
            wait_until(lambda: _ended(three), "the end of the third")
        one.sendall(b"<13>c\n")
        wait_until(lambda: len(intake.records()) == 3, "the first sender")
    wait_until(lambda: intake.incidents().get(("tcp", "connections-refused")) == 1, "the count")
    wait_until(lambda: _stored(intake, port, 4), "room after two have gone")


def test_a_silent_connection_is_closed_and_a_talking_one_is_not(intake: Intake) -> None:
    port = intake.tcp(idle_timeout_s=0.4)
    with connect(port) as silent, connect(port) as talking:
        deadline = time.monotonic() + 30
        while not _ended(silent):
            talking.sendall(b"<13>still here\n")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        talking.sendall(b"<13>still here\n")
        assert not _ended(talking)
    wait_until(lambda: intake.incidents().get(("tcp", "connections-idle")) == 1, "the count")


def test_a_full_spool_makes_senders_wait_and_loses_nothing(tmp_path: Path) -> None:
    intake = Intake(tmp_path, max_bytes=1 << 20)
    intake.commit.start()
    lines = [b"<13>%08d %s" % (n, b"x" * 80) for n in range(150_000)]
    sender = connect(intake.tcp())
    sending = threading.Thread(target=sender.sendall, args=(b"".join(line + b"\n" for line in lines),))
    sending.start()
    wait_until(lambda: intake.reader.status().refusing, "a full spool")
    assert sending.is_alive()
    seen: list[bytes] = []
    while len(seen) < len(lines):
        rows = wait_until(lambda: intake.reader.read(0, 1000), "more rows")
        seen.extend(record for row in rows for record in row.arrival.records)
        intake.reader.trim(rows[-1].seq + 1)
    sending.join()
    sender.close()
    intake.close()

    assert seen == lines
    assert intake.reader.status().counters.losses == {}


def test_a_sender_that_stops_where_it_sees_our_end_has_lost_nothing_that_it_sent(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "_DRAIN_S", 30.0)  # so that a slow machine is only slow; it ends with the sender
    sent: list[bytes] = []

    def send(sender: socket.socket) -> None:
        with sender, suppress(ConnectionError):
            while not select.select([sender], [], [], 0)[0]:  # as rsyslog does
                lines = [b"<13>%08d %s" % (len(sent) + n, b"x" * 80) for n in range(100)]
                sender.sendall(b"".join(line + b"\n" for line in lines))
                sent.extend(lines)

    sending = threading.Thread(target=send, args=(connect(intake.tcp()),))
    sending.start()
    wait_until(intake.records, "the first lines")
    intake.close()
    sending.join()

    assert intake.records() == sent
    assert intake.incidents() == {}


def test_a_sender_that_never_looks_holds_a_stop_up_only_shortly(intake: Intake) -> None:
    with connect(intake.tcp()) as sender:
        sender.sendall(b"<13>one\n")
        intake.wait_for(b"<13>one")
        began = time.monotonic()
        intake.close()
        assert time.monotonic() - began < 5


def test_nobody_is_let_in_while_others_end(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "_DRAIN_S", 30.0)
    port = intake.tcp()
    with connect(port) as sender:
        sender.sendall(b"<13>one\n")
        intake.wait_for(b"<13>one")
        closing = threading.Thread(target=intake.close)
        closing.start()
        wait_until(lambda: _ended(sender), "our end")
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        sender.sendall(b"<13>two\n")
    closing.join()

    assert intake.records() == [b"<13>one", b"<13>two"]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(directory: Path, authority: trustme.CA, *, client_ca: bool) -> ssl.SSLContext:
    certificate = directory / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    return server_context("source `tcp`", str(certificate), str(certificate), str(ca) if client_ca else "")


def tls_client(authority: trustme.CA, identity_of: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if identity_of is not None:
        identity_of.issue_cert("sender").configure_cert(context)
    return context


def test_tls_carries_records_and_a_sender_that_we_know_may_be_required(
    intake: Intake, tmp_path: Path, authority: trustme.CA
) -> None:
    port = intake.tcp(tls_server(tmp_path, authority, client_ca=True))
    with tls_client(authority, authority).wrap_socket(connect(port), server_hostname="127.0.0.1") as sender:
        sender.sendall(b"10 <13>sealed10 <13>opened")
        intake.wait_for(b"<13>sealed", b"<13>opened")


def test_a_stop_says_goodbye_in_tls(intake: Intake, tmp_path: Path, authority: trustme.CA) -> None:
    port = intake.tcp(tls_server(tmp_path, authority, client_ca=False))
    with tls_client(authority).wrap_socket(
        connect(port), server_hostname="127.0.0.1", suppress_ragged_eofs=False
    ) as sender:
        sender.sendall(b"10 <13>sealed")
        intake.wait_for(b"<13>sealed")
        intake.close()

        assert sender.recv(1) == b""  # an end without a goodbye would raise


def test_strangers_and_plain_talkers_are_refused_and_counted(
    intake: Intake, tmp_path: Path, authority: trustme.CA
) -> None:
    port = intake.tcp(tls_server(tmp_path, authority, client_ca=True))
    for identity_of in (None, trustme.CA()):
        # A client learns of its refusal when it reads, some time after its handshake.
        with (
            suppress(ssl.SSLError, ConnectionError),
            tls_client(authority, identity_of).wrap_socket(connect(port), server_hostname="127.0.0.1") as sender,
        ):
            sender.sendall(b"10 <13>sealed")
            assert sender.recv(1) == b""
    with connect(port) as plain:
        plain.sendall(b"<13>not sealed at all, and long enough to be no handshake\n")
        wait_until(lambda: _ended(plain), "the end of the connection")
    wait_until(lambda: intake.incidents().get(("tcp", "handshakes-failed")) == 3, "the counts")

    assert intake.records() == []


def test_an_address_that_is_taken_is_named_with_what_to_do(intake: Intake) -> None:
    udp = UdpSource(name="x", host="127.0.0.1", port=intake.udp(), max_event_bytes=1, receive_buffer_bytes=1)
    tcp = TcpSource(
        name="x", host="127.0.0.1", port=intake.tcp(), max_event_bytes=1, max_connections=1, idle_timeout_s=1
    )

    with pytest.raises(
        UnavailableError, match=f"udp 127.0.0.1:{udp.port} cannot be bound: Address already in use; stop"
    ):
        UdpListener(udp, intake.commit)
    with pytest.raises(
        UnavailableError, match=f"tcp 127.0.0.1:{tcp.port} cannot be bound: Address already in use; stop"
    ):
        TcpListeners([tcp], intake.commit)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.setblocking(True)


def _stored(intake: Intake, port: int, count: int) -> bool:
    with suppress(ConnectionError), connect(port) as sender:
        sender.sendall(b"<13>again\n")
    return len(intake.records()) >= count
