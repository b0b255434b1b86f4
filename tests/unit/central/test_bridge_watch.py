"""A bridge serves while each of its threads takes turns; one that waits says for what."""

from prometheus_client import generate_latest

from central.bridge_watch import BridgeWatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_is_ready_once_every_thread_has_what_it_needs_and_not_while_one_waits() -> None:
    watch = BridgeWatch(["up", "down"])
    assert watch.unready() == ["up: it has not begun", "down: it has not begun"]

    watch.turned("up", 3)
    watch.turned("down")
    assert watch.unready() == []
    watch.waits("down", "kafka is away")

    assert watch.unready() == ["down: kafka is away"]
    figures = generate_latest(watch.registry).decode()
    assert 'headwater_bridge_carried_total{thread="up"} 3.0' in figures
    assert 'headwater_bridge_up{thread="down"} 0.0' in figures


def test_a_thread_that_is_stuck_is_restarted_and_one_that_waits_is_not() -> None:
    clock = Clock()
    watch = BridgeWatch(["up", "down"], clock)
    watch.turned("up")
    clock.now = 50.0
    watch.waits("down", "kafka is away")
    clock.now = 61.0

    assert watch.unhealthy() == ["up took no turn for 61 s"]
    assert watch.unready() == ["up took no turn for 61 s", "down: kafka is away"]
