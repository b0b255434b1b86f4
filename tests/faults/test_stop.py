"""How a gateway stops, and what it then remembers."""

import signal
import socket
from pathlib import Path

import psutil

from dataflows.running.child import free_port
from edge.gateway_process import GatewayProcess
from tests.faults.gateway import SAMPLE, STARTS_WITHIN_S, Gateway, kill_intake, running, wait_until


def test_a_stopped_gateway_exits_0_and_goes_on_where_it_was(tmp_path: Path, quick_model: Path) -> None:
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        gateway.send(*SAMPLE[:50])
        gateway.await_answers(50)
        code, seconds = gateway.process.stop()
        assert (code, seconds < 5.0) == (0, True)
    with running(gateway):
        gateway.send(*SAMPLE[50:100])
        texts = gateway.await_answers(100)
        assert gateway.process.stop()[0] == 0
    assert texts == {f"<14>{line}": 1 for line in SAMPLE[:100]}
    assert gateway.harvest.repeats == 0
    assert gateway.accepted() == 100


def test_a_stop_while_events_pour_in_loses_none_that_was_accepted(tmp_path: Path, quick_model: Path) -> None:
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        with gateway.connect() as sock:
            sock.sendall("".join(f"<14>{line}\n" for line in SAMPLE).encode())
            wait_until(lambda: gateway.texts().total() > 0, lambda: "no verdict")
            code, seconds = gateway.process.stop()
        assert (code, seconds < 5.0) == (0, True)
    accepted = gateway.accepted()
    with running(gateway):
        texts = gateway.await_answers(accepted)
        assert gateway.process.stop()[0] == 0
    assert texts.total() == accepted
    assert set(texts.values()) == {1}


def test_a_stop_within_5_s_holds_with_a_siem_that_is_away_and_one_that_hangs(tmp_path: Path, quick_model: Path) -> None:
    # A listener whose backlog is never accepted: it takes a connection and then nothing.
    with socket.create_server(("127.0.0.1", 0), backlog=1) as hanging:
        outputs = (
            f'[[outputs]]\nkind = "syslog"\nname = "away"\nport = {free_port()}\n'
            f'[[outputs]]\nkind = "syslog"\nname = "hangs"\nport = {hanging.getsockname()[1]}\n'
        )
        gateway = Gateway(tmp_path, quick_model, outputs=outputs)
        with running(gateway):
            gateway.send(*SAMPLE[:300])
            gateway.await_answers(300)
            code, seconds = gateway.process.stop()
            assert (code, seconds < 5.0) == (0, True)


def test_a_stop_within_5_s_holds_while_the_model_is_busy_for_longer(tmp_path: Path, slow_model: Path) -> None:
    gateway = Gateway(tmp_path, slow_model, more_model="context_tokens = 4096")
    with running(gateway):
        gateway.send(" ".join(SAMPLE[:60])[:8_000])  # one event, so that no window is small enough
        wait_until(lambda: gateway.process.total("headwater_taken_total") > 0, lambda: "the flow took nothing")
        code, seconds = gateway.process.stop()
        assert (code, seconds < 5.0) == (0, True)
        assert "event=stop_deadline_passed" in gateway.process.log_tail()
        assert "event=stopped" not in gateway.process.log_tail()


def test_a_stop_within_5_s_holds_while_the_intake_hangs(tmp_path: Path, quick_model: Path) -> None:
    with running(Gateway(tmp_path, quick_model)) as gateway:
        gateway.send(*SAMPLE[:10])
        gateway.await_answers(10)
        (intake,) = psutil.Process(gateway.process.pid).children()
        intake.suspend()
        code, seconds = gateway.process.stop()
        assert (code, seconds < 5.0) == (0, True)
        assert not intake.is_running()


def test_the_service_manager_hears_that_we_are_ready_alive_and_stopping(tmp_path: Path, quick_model: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with running(Gateway(tmp_path / "gw", quick_model, environment=environment)) as gateway:
            heard = [manager.recv(200).decode() for _ in range(3)]
            assert gateway.process.stop()[0] == 0
            while heard[-1] != "STOPPING=1":
                heard.append(manager.recv(200).decode())
    assert heard[0] == "READY=1\nSTATUS=tiny-3 listening"
    assert set(heard[1:-1]) == {"WATCHDOG=1"}


def test_control_c_is_a_stop_too(tmp_path: Path, quick_model: Path) -> None:
    with running(Gateway(tmp_path, quick_model)) as gateway:
        gateway.process.send(signal.SIGINT)
        assert gateway.process.wait(5.0) == 0


def test_an_intake_that_is_killed_comes_back_on_the_same_port(tmp_path: Path, quick_model: Path) -> None:
    with running(Gateway(tmp_path, quick_model)) as gateway:
        gateway.send(*SAMPLE[:10])
        gateway.await_answers(10)
        kill_intake(gateway)
        wait_until(lambda: gateway.process.get("/readyz")[0] == 503, lambda: "still ready without an intake")
        wait_until(lambda: gateway.process.get("/readyz")[0] == 200, gateway.process.log_tail)
        gateway.send(*SAMPLE[10:20])
        assert gateway.await_answers(20) == {f"<14>{line}": 1 for line in SAMPLE[:20]}
        assert "event=intake_restarted exit_code=-9" in gateway.process.log_tail()


def test_a_second_gateway_on_the_same_state_is_refused_and_the_first_goes_on(tmp_path: Path, quick_model: Path) -> None:
    with running(Gateway(tmp_path, quick_model)) as gateway:
        second = GatewayProcess(gateway.process.config, gateway.process.operations_port)
        second.start()
        try:
            assert second.wait(STARTS_WITHIN_S) == 2
        finally:
            second.kill()
        assert f"lock: held by process {gateway.process.pid}; one process per state directory" in second.log_tail()
        gateway.send(*SAMPLE[:10])
        gateway.await_answers(10)


def test_a_policy_is_read_again_on_sighup_and_a_bad_one_is_refused(tmp_path: Path, quick_model: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("number = 1\naccept_at = 0.0\n")
    with running(Gateway(tmp_path, quick_model, more=f'policy_file = "{policy}"')) as gateway:
        gateway.send("first")
        gateway.await_answers(1)
        policy.write_text('number = 2\naccept_at = 1.0\nmass_floor = 1.0\ndoubtful = "unsure"\n')
        gateway.process.send(signal.SIGHUP)
        wait_until(
            lambda: "event=policy_replaced before=1 now=2" in gateway.process.log_tail(), gateway.process.log_tail
        )
        gateway.send("second")
        gateway.await_answers(2)
        policy.write_text("numbr = 3\n")
        gateway.process.send(signal.SIGHUP)
        wait_until(lambda: "event=policy_refused" in gateway.process.log_tail(), gateway.process.log_tail)
        gateway.send("third")
        gateway.await_answers(3)
        found = {verdict.text: (verdict.policy, verdict.route) for verdict in gateway.harvest.verdicts.values()}
        assert found == {"<14>first": (1, "accepted"), "<14>second": (2, "unsure"), "<14>third": (2, "unsure")}
        assert gateway.process.total("headwater_policy_number") == 2


def test_a_policy_in_the_configuration_is_read_again_on_sighup_and_a_label_it_invents_is_refused(
    tmp_path: Path, quick_model: Path
) -> None:
    gateway = Gateway(tmp_path, quick_model)
    config = gateway.process.config
    text = config.read_text()
    config.write_text(f"{text}[policy]\nnumber = 1\n")
    with running(gateway):
        config.write_text(f"{text}[policy]\nnumber = 2\n")
        gateway.process.send(signal.SIGHUP)
        wait_until(
            lambda: "event=policy_replaced before=1 now=2" in gateway.process.log_tail(), gateway.process.log_tail
        )
        assert gateway.process.total("headwater_policy_number") == 2
        config.write_text(f"{text}[policy]\nnumber = 3\naccept_at_by_label = {{ nonsense = 0.5 }}\n")
        gateway.process.send(signal.SIGHUP)
        wait_until(lambda: "event=policy_refused" in gateway.process.log_tail(), gateway.process.log_tail)
        assert "found `nonsense`" in gateway.process.log_tail()
        assert gateway.process.total("headwater_policy_number") == 2


def test_sighup_says_what_it_changed_and_takes_no_other_policy_under_the_same_number(
    tmp_path: Path, quick_model: Path
) -> None:
    gateway = Gateway(tmp_path, quick_model)
    config = gateway.process.config
    text = config.read_text()
    config.write_text(f"{text}[policy]\nnumber = 4\n")
    with running(gateway):

        def await_said(said: str) -> None:
            gateway.process.send(signal.SIGHUP)
            wait_until(lambda: said in gateway.process.log_tail(), gateway.process.log_tail)

        await_said("event=policy_unchanged number=4")
        assert "event=restart_needed" not in gateway.process.log_tail()
        config.write_text(f"{text}[policy]\nnumber = 4\naccept_at = 0.5\n")
        await_said("it differs from number 4, in force, and has `number` 4; raise it")
        config.write_text(f"{text}[policy]\nnumber = 3\naccept_at = 0.5\n")
        await_said("it differs from number 4, in force, and has `number` 3; raise it")
        config.write_text(f"{text}[policy]\nnumber = 5\naccept_at = 0.5\n[repeats]\nwindow_s = 7\n")
        await_said("event=policy_replaced before=4 now=5")
        assert "event=restart_needed changed=['repeats']" in gateway.process.log_tail()


def test_a_stop_that_reaches_the_intake_too_loses_nothing_and_its_state_is_for_its_user_only(
    tmp_path: Path, quick_model: Path
) -> None:
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        with gateway.connect() as sock:
            sock.sendall("".join(f"<14>{line}\n" for line in SAMPLE[:500]).encode())
            wait_until(lambda: gateway.accepted() > 0, lambda: "nothing accepted")
            for child in psutil.Process(gateway.process.pid).children():
                child.terminate()
            code, seconds = gateway.process.stop()
        assert (code, seconds < 5.0) == (0, True)
    assert gateway.state.stat().st_mode & 0o777 == 0o700
    accepted = gateway.accepted()
    with running(gateway):
        assert gateway.await_answers(accepted).total() == accepted
