"""The intake process: it says where it listens or why it does not, and ends with its lifeline, its work on disk."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.real.intake import IntakeProcess, running, wait_until

UDP = '[[sources]]\nkind = "syslog-udp"\nname = "udp"\nport = 0\n'
TCP = '[[sources]]\nkind = "syslog-tcp"\nname = "tcp"\nport = 0\n'
STDIN = '[[sources]]\nkind = "stdin"\nname = "pipe"\n'


def tail(path: Path) -> str:
    return f'[[sources]]\nkind = "file"\nname = "app"\npath = "{path}"\n'


def test_every_source_reaches_the_spool_and_the_end_of_the_lifeline_ends_it_within_two_seconds(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.log").write_text("from a file\n")
    with running(IntakeProcess(tmp_path, UDP + TCP + tail(tmp_path / "app.log"))) as intake:
        assert set(intake.ports) == {"udp", "tcp"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"<13>a datagram", ("127.0.0.1", intake.ports["udp"]))
        with socket.create_connection(("127.0.0.1", intake.ports["tcp"])) as stream:
            stream.sendall(b"<13>a line\n")
            intake.wait_for_events(3)
            began = time.monotonic()
            assert intake.stop() == 0
            assert time.monotonic() - began < 2

    assert sorted(intake.records()) == [b"<13>a datagram", b"<13>a line", b"from a file"]


def test_what_was_sent_just_before_the_end_is_on_disk_after_it(tmp_path: Path) -> None:
    with running(IntakeProcess(tmp_path, UDP)) as intake:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for n in range(1000):
                datagrams.sendto(b"%d" % n, ("127.0.0.1", intake.ports["udp"]))
        intake.stop()

    assert intake.records() == [b"%d" % n for n in range(1000)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_sigterm_ends_it_and_what_a_terminal_sends_to_all_does_not(tmp_path: Path, number: signal.Signals) -> None:
    with running(IntakeProcess(tmp_path, UDP)) as intake:
        assert intake.process is not None
        intake.process.send_signal(number)
        if number is signal.SIGTERM:
            assert intake.process.wait(30) == 0
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto(b"still here", ("127.0.0.1", intake.ports["udp"]))
            intake.wait_for_events(1)
            assert intake.process.poll() is None


def test_standard_input_is_read_to_its_end_and_the_others_go_on(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    intake = IntakeProcess(tmp_path, STDIN + UDP)
    try:
        intake.start(stdin=read_end)
        os.close(read_end)
        os.write(write_end, b"one\ntwo\nand the last")
        os.close(write_end)
        intake.wait_for_events(3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"later", ("127.0.0.1", intake.ports["udp"]))
        intake.wait_for_events(4)
        assert intake.stop() == 0
    finally:
        if intake.process is not None and intake.process.poll() is None:
            intake.kill()

    assert intake.records() == [b"one", b"two", b"and the last", b"later"]


PARENT = """
import os, subprocess, sys
read_end, write_end = os.pipe()
child = subprocess.Popen([sys.executable, "-m", "edge.intake", sys.argv[1], "--lifeline", str(read_end)],
                         pass_fds=(read_end,), stdin=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""


def test_it_does_not_outlive_a_parent_that_is_killed_and_lets_go_of_its_ports(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    intake = IntakeProcess(tmp_path, UDP.replace("port = 0", f"port = {port}"))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(intake.config)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert b'"ready": true' in parent.stdout.readline()
        parent.kill()
        parent.wait()
        wait_until(lambda: not psutil.pid_exists(child), "the end of the child", 10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


def refused(tmp_path: Path, sources: str, spool_max_bytes: int = 64 << 20, *, exit_code: int = 2) -> str:
    intake = IntakeProcess(tmp_path, sources, spool_max_bytes)
    announced = intake.start()
    assert intake.stop() == exit_code
    assert announced["ready"] is False
    error: str = announced["error"]
    return error


def test_a_port_in_use_is_named_with_its_source_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        error = refused(tmp_path, TCP.replace("port = 0", f"port = {port}"), exit_code=1)

    assert error == (
        f"source `tcp`: tcp 127.0.0.1:{port} cannot be bound: Address already in use; "
        "stop what listens there (`ss -lnpt`), or set another port"
    )


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, TCP + 'tls = { certificate = "/nowhere/c.pem", key = "/nowhere/k.pem" }\n')

    assert error.startswith("source `tcp`: certificate /nowhere/c.pem cannot be read: No such file or directory")


def test_overlapping_topics_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, '[[sources]]\nkind = "mqtt"\nname = "m"\ntopics = ["a/#", "a/b"]\n')

    assert "source `m`: `topics`: `a/#` and `a/b` overlap" in error


def test_a_spool_too_small_to_work_is_refused(tmp_path: Path) -> None:
    assert "Expected `int` >= 1048576 - at `$.spool.max_bytes`" in refused(tmp_path, UDP, 1000)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")

    assert str(tmp_path / "state") in refused(tmp_path, UDP)


def test_it_stays_small(tmp_path: Path) -> None:
    with running(IntakeProcess(tmp_path, UDP + TCP)) as intake:
        assert intake.process is not None
        modules = psutil.Process(intake.process.pid).memory_maps()
        assert not [found.path for found in modules if "numpy" in found.path or "llama" in found.path]
        assert psutil.Process(intake.process.pid).memory_info().rss < 60 << 20
