"""`python -m edge cache` in front of a real gateway: at work, killed, started again, stopped."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from edge.control import socket_path
from tests.faults.gateway import Gateway, running, wait_until

ROOT = Path(__file__).parents[2]
LINES = [f"Jan  2 03:04:05 web-1 app[{at}]: job 1000{at} by 198.51.100.{at} ended" for at in range(9)]
UNAUDITED = """
[policy]
accept_at = 0.0
[policy.cache]
audit_rate = 0.0
audit_rate_young = 0.0
audit_rate_grave = 0.0
"""
TEMPLATE = "app: job ⟨5 digits⟩ by ⟨public address⟩ ended"


def edge_cache(gateway: Gateway, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "edge", "cache", *arguments, "--config", gateway.process.config],
        cwd=gateway.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def templates(gateway: Gateway) -> dict[str, str]:
    """The names of the templates that are listed, by their texts."""
    code, out, err = edge_cache(gateway, "list", "--json")
    assert code == 0, err
    return {record["template"]: record["name"] for record in map(json.loads, out.splitlines())}


def test_a_gateway_tells_what_its_cache_knows_and_what_it_is_told_to_forget_is_not_kept(
    tmp_path: Path, quick_model: Path
) -> None:
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        gateway.send(*LINES, "another one")
        gateway.await_answers(10)
        found = templates(gateway)
        assert found.keys() == {TEMPLATE, "another one"}
        code, out, _ = edge_cache(gateway, "explain", LINES[3])
        assert code == 0
        assert f"template  {TEMPLATE}\n" in out
        assert "public address  198.51.100.3\n" in out
        assert found[TEMPLATE] in out
        gateway.process.kill()

    assert socket_path(gateway.state).is_socket()
    code, _, err = edge_cache(gateway, "list")
    assert (code, "no gateway answers at" in err) == (1, True)

    with running(gateway):  # after a crash it learns anew
        gateway.send(*LINES, "another one")
        gateway.await_answers(20)
        code, out, err = edge_cache(gateway, "forget", found[TEMPLATE])
        assert (code, err) == (0, "")
        assert gateway.process.stop()[0] == 0  # and no event came in between

    assert not socket_path(gateway.state).exists()
    assert templates(gateway) == {"another one": found["another one"]}


def test_a_gateway_that_was_stopped_is_warm_when_it_starts_again_and_one_that_was_killed_is_not(
    tmp_path: Path, quick_model: Path
) -> None:
    gateway = Gateway(tmp_path, quick_model, more=UNAUDITED)

    def answered_by(text: str, count: int) -> str | None:
        """The entry that answered a text, which is the last of so many."""
        gateway.send(text)
        gateway.await_answers(count)
        return list(gateway.harvest.verdicts.values())[-1].cached

    with running(gateway):
        assert (answered_by("one", 1), answered_by("another", 2)) == (None, None)
        assert gateway.process.stop()[0] == 0
    kept = templates(gateway)
    with running(gateway):
        assert answered_by("one", 3) == kept["one"]
        gateway.process.kill()
    with running(gateway):  # which may answer the last one again, and learn from that
        assert answered_by("another", 4) is None


def test_a_start_that_fails_leaves_the_cache_to_the_next_one(tmp_path: Path, quick_model: Path) -> None:
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        gateway.send("another one")
        gateway.await_answers(1)
        assert gateway.process.stop()[0] == 0
    kept = templates(gateway)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gateway.tcp))
        taken.listen()
        gateway.process.start()
        wait_until(lambda: gateway.process.ended is not None, gateway.process.log_tail, within_s=60)
    assert gateway.process.ended == 1
    assert "cannot be bound" in gateway.process.log_tail()
    assert templates(gateway) == kept
