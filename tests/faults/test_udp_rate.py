"""Datagrams at the rate that we promise: each one stored, in order."""

import socket
import time
from pathlib import Path

import pytest

from tests.conftest import absent
from tests.real.intake import IntakeProcess, running, wait_until

UDP = '[[sources]]\nkind = "syslog-udp"\nname = "udp"\nport = 0\n'
RATE = 20_000  # a second
LINE = b"<34>Nov 21 06:55:46 alpha sshd[24200]: Failed password for root from 192.0.2.7 port 22 ssh2 %d"


def send_at_rate(port: int, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        began = time.monotonic()
        sent = 0
        while sent < count:
            due = min(count, int((time.monotonic() - began) * RATE))
            for number in range(sent, due):
                sender.send(LINE % number)
            sent = due
            time.sleep(0.0005)  # the pace is the experiment


def receive_at_rate(directory: Path, seconds: int) -> None:
    count = RATE * seconds
    with running(IntakeProcess(directory, UDP, spool_max_bytes=1 << 30)) as intake:
        send_at_rate(intake.ports["udp"], count)
        wait_until(lambda: intake.events() + sum(intake.status().counters.losses.values()) >= count, "every datagram")
        intake.stop()
        if "receive_buffer_small" in intake.log.read_text():
            absent("net.core.rmem_max does not grant the receive buffer that the rate needs")

    assert intake.status().counters.losses == {}
    assert intake.records() == [LINE % number for number in range(count)]


def test_twenty_thousand_datagrams_a_second_are_all_stored(tmp_path: Path) -> None:
    receive_at_rate(tmp_path, 2)


@pytest.mark.slow
def test_twenty_thousand_datagrams_a_second_for_a_minute_are_all_stored(tmp_path: Path) -> None:
    receive_at_rate(tmp_path, 60)
