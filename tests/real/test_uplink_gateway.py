"""A gateway on its way to the centre and back: a real broker, a real Kafka, a bridge, and a centre that answers."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import sleep

import msgspec
import pytest
import trustme

from central.local_kafka import LocalKafka
from central.topics import Names
from dataflows.connectors.tls import client_context
from edge.config import read_config
from edge.uplink import knock_uplink
from models.contracts.errors import UnavailableError
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_verdict, encode
from tests.conftest import ROOT
from tests.fakes.tiny_models import tiny_decoder
from tests.faults.gateway import Gateway, running, wait_until
from tests.real import bridge as bridges
from tests.real.bridge import BridgeProcess, carrier, delivered, make_topics, produce, verdicts
from tests.real.intake import IntakeProcess
from tests.real.intake import running as listening
from tests.real.kafka import read_all
from tests.real.mosquitto import Mosquitto

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
def names(kafka: LocalKafka, topic: str) -> Names:
    return make_topics(kafka, topic)


DOUBTS_ALL = '[policy]\nnumber = 9\naccept_at = 1.0\ndoubtful = "escalated"\n'


def asked(gateway: Gateway, texts: set[str]) -> list[Verdict]:
    """Return what the gateway itself said of these texts, once it has said something of each."""

    def own() -> list[Verdict]:
        gateway.harvest.gather()
        found = gateway.harvest.verdicts.values()
        return [each for each in found if each.text in texts and each.revision < CENTRAL]

    wait_until(lambda: {each.text for each in own()} == texts, gateway.process.log_tail, 60)
    return own()


def test_what_a_gateway_doubts_the_centre_answers_and_while_that_is_away_the_default_stands(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names
) -> None:
    settings = f"{DOUBTS_ALL}[uplink]\nport = {broker.port}\n"
    gateway = Gateway(tmp_path / "gateway", tiny_decoder(tmp_path / "quick.gguf"), more=settings)
    bridge = BridgeProcess(tmp_path, broker, kafka, names)
    lines = [f"event {number}" for number in range(30)]
    sent = [f"<14>{line}" for line in lines]

    with ExitStack() as opened:
        opened.enter_context(running(gateway))
        wait_until(lambda: said(gateway, "sink_failing"), gateway.process.log_tail)
        gateway.send(*lines[:10])
        alone = asked(gateway, set(sent[:10]))
        assert {(each.route, each.label, each.revision) for each in alone} == {("unsure", "suspicious", 0)}

        opened.enter_context(bridges.running(bridge))
        wait_until(lambda: said(gateway, "sink_recovered"), gateway.process.log_tail, 60)
        gateway.send(*lines[10:20])
        together = asked(gateway, set(sent[10:20]))
        assert {each.route for each in together} == {"escalated"}

        failures = said(gateway, "sink_failing")
        bridge.stop(signal.SIGKILL)
        wait_until(lambda: said(gateway, "sink_failing") > failures, gateway.process.log_tail, 60)
        gateway.send(*lines[20:])
        assert {each.route for each in asked(gateway, set(sent[20:]))} == {"unsure"}

        bridge.start()
        wait_until(lambda: len(questions(kafka, names)) == 30, gateway.process.log_tail, 60)
        produce(kafka, names.verdicts, [answer(each) for each in questions(kafka, names)])
        wait_until(lambda: len(answered(gateway)) == 30, gateway.process.log_tail, 60)
        assert gateway.process.stop()[0] == 0

    assert {(each.label, each.release, each.route) for each in answered(gateway)} == {
        ("critical", "large-1", "accepted")
    }
    assert {each.id for each in answered(gateway)} == {each.id for each in questions(kafka, names)}
    # What the centre said does not go up again, for it would come back from there.
    assert {each.id for each in values(kafka, names.verdicts) if each.revision == 0} == {
        each.id for each in questions(kafka, names)
    }
    assert len([each for each in values(kafka, names.verdicts) if each.revision == CENTRAL]) == 30
    assert read_all(kafka, names.dead_letters) == []


def said(gateway: Gateway, event: str) -> int:
    return gateway.process.log_tail(1 << 20).count(event)


def values(kafka: LocalKafka, topic: str) -> list[Verdict]:
    return [decode_verdict(record.value) for record in read_all(kafka, topic)]


def questions(kafka: LocalKafka, names: Names) -> list[Verdict]:
    return list({each.id: each for each in values(kafka, names.questions)}.values())


def answer(question: Verdict) -> bytes:
    said = {"label": "critical", "route": "accepted", "release": "large-1", "revision": CENTRAL}
    return encode(msgspec.structs.replace(question, **said))


def answered(gateway: Gateway) -> list[Verdict]:
    found = map(decode_verdict, gateway.output.read_bytes().splitlines())
    return list({each.id: each for each in found if each.revision == CENTRAL}.values())


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killing_the_intake_neither_loses_nor_doubles_an_answer(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    broker: Mosquitto,
    kafka: LocalKafka,
    names: Names,
    kills: int,
    progress: Callable[[str], None],
) -> None:
    chance = Random(kills)
    intake = IntakeProcess(tmp_path, f"[uplink]\nport = {broker.port}\n")
    sent: list[bytes] = []
    with bridges.running(BridgeProcess(tmp_path, broker, kafka, names)):
        for number in range(kills):
            progress(f"kill {number} of {kills}")
            more = verdicts(len(sent), len(sent) + 400, revision=CENTRAL)
            with listening(intake):
                produce(kafka, names.verdicts, more[:200])
                sleep(chance.random())
                produce(kafka, names.verdicts, more[200:])
                intake.kill()
            sent += more
        with listening(intake):
            intake.wait_for_events(len(sent))
            assert intake.stop() == 0

    assert sorted(intake.records()) == sorted(sent)


def test_a_check_says_whether_a_bridge_answers(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names
) -> None:
    (tmp_path / "edge.toml").write_text(f"[uplink]\nport = {broker.port}\n")
    config = read_config(tmp_path / "edge.toml")
    assert config.uplink is not None

    with pytest.raises(UnavailableError, match="nobody who would answer is connected"):
        knock_uplink(config, config.uplink, None)
    with bridges.running(BridgeProcess(tmp_path, broker, kafka, names)):
        knock_uplink(config, config.uplink, None)
    broker.stop()
    with pytest.raises(UnavailableError, match="Connection refused"):
        knock_uplink(config, config.uplink, None)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with the access list of the guide: who a client is, its certificate says."""
    guide = (ROOT / "docs" / "guides" / "outputs.md").read_text(encoding="utf-8")
    (tmp_path / "acl").write_text(re.findall(r"```\n(pattern .*?)```", guide, flags=re.DOTALL)[0])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "broker.pem")
    for name in ("gw-1", "gw-2", "bridge"):
        issued = authority.issue_cert(name, common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    broker = Mosquitto(
        tmp_path / "broker",
        f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.pem\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {tmp_path}/acl\n",
    )
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


def test_a_gateway_speaks_and_hears_under_its_own_name_only(
    tmp_path: Path, guarded: Mosquitto, kafka: LocalKafka, names: Names
) -> None:
    certificate = {
        name: client_context("uplink", *(str(tmp_path / each) for each in ("ca.pem", f"{name}.pem", f"{name}.pem")))
        for name in ("gw-1", "gw-2")
    }
    with bridges.running(BridgeProcess(tmp_path, guarded, kafka, names, certificate="bridge")):
        ours = carrier(guarded, "gw-1", tls=certificate["gw-1"])
        delivered(ours, verdicts(0, 10, "gw-1"))
        ours.close()
        with pytest.raises(UnavailableError, match=r"refuses what we publish to `headwater/gw-1/uplink`: Not auth"):
            carrier(guarded, "gw-1", tls=certificate["gw-2"]).deliver(verdicts(0, 10, "gw-1"))
        produce(kafka, names.verdicts, verdicts(0, 10, "gw-1", revision=CENTRAL))
        for holder, count in (("gw-1", 10), ("gw-2", 0)):
            disk = bridges.GatewaysDisk(tmp_path / holder, guarded, "gw-1", tls=certificate[holder])
            with disk.fetching():
                sleep(3)
            assert len(disk.lines()) == count
