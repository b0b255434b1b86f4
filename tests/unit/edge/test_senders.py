import socket
from threading import Thread
from time import monotonic

from edge.senders import as_syslog, line_framed, octet_counted, paced, send_tcp


def test_octet_counting_counts_octets_and_not_characters() -> None:
    assert octet_counted("<14>é".encode()) == b"6 <14>\xc3\xa9"
    assert line_framed(b"<14>a") == b"<14>a\n"


def test_only_a_line_without_a_priority_gets_one() -> None:
    assert as_syslog(b"hello") == b"<14>hello"
    assert as_syslog(b"<34>hello") == b"<34>hello"
    assert as_syslog(b"<Event>hello") == b"<14><Event>hello"


def test_the_pace_is_kept_and_what_was_late_is_caught_up_with() -> None:
    lines = [b"x"] * 100
    began = monotonic()
    assert b"".join(line for some in paced(lines, 500, at_once=10) for line in some) == b"x" * 100
    assert 0.17 < monotonic() - began < 2.0


def test_a_tcp_sender_returns_after_the_receiver_has_read_to_the_end() -> None:
    received = []

    def receive(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            received.append(file.read())

    with socket.create_server(("127.0.0.1", 0)) as server:
        reader = Thread(target=receive, args=(server,))
        reader.start()
        send_tcp(server.getsockname()[1], [[b"<14>a", b"<14>b"], [b"<14>c"]], line_framed)
        assert received == [b"<14>a\n<14>b\n<14>c\n"]
        reader.join(10)
