"""Verdicts to a real OpenSearch: each is there once as its highest revision says, whatever the node does meanwhile."""

import signal
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Timer
from time import sleep
from typing import Any

import pytest
import trustme

from central.deliveries.index import IndexCarrier, IndexCluster, examine, template
from central.local_opensearch import LocalOpenSearch
from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.tls import client_context
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_dead_letter, encode
from tests.conftest import outages
from tests.fakes.carrier import FarEnd
from tests.fakes.verdicts import verdict
from tests.real.front import before
from tests.real.intake import wait_until

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def cluster(opensearch: LocalOpenSearch, request: pytest.FixtureRequest) -> IndexCluster:
    """Indices that no other test has."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return IndexCluster(url=opensearch.url, prefix=name[-60:].strip("-"))


@contextmanager
def carrier(cluster: IndexCluster) -> Iterator[IndexCarrier]:
    with closing(IndexCarrier(cluster)) as found:
        yield found


def payloads(first: int, end: int, **said: Any) -> list[bytes]:
    return [encode(found) for found in verdicts(first, end, **said)]


def verdicts(first: int, end: int, **said: Any) -> list[Verdict]:
    return [verdict(id=EventId(f"o.{number}"), **said) for number in range(first, end)]


def ids(first: int, end: int) -> set[str]:
    return {f"o.{number}" for number in range(first, end)}


def documents(
    opensearch: LocalOpenSearch, cluster: IndexCluster, query: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What is found, by id; an id that is found twice is a mistake."""
    with closing(opensearch.client()) as client:
        client.indices.refresh(index=cluster.name)
        body = {"query": query or {"match_all": {}}, "size": 10_000}
        hits = client.search(index=cluster.name, body=body)["hits"]["hits"]
    found = {hit["_id"]: hit["_source"] for hit in hits}
    assert len(found) == len(hits)
    return found


def test_every_verdict_is_found_once_however_often_it_comes(opensearch: LocalOpenSearch, cluster: IndexCluster) -> None:
    with carrier(cluster) as to_index:
        assert list(to_index.deliver(payloads(0, 2000))) == []
        assert list(to_index.deliver(payloads(0, 3000))) == []
        assert list(to_index.deliver([])) == []

    found = documents(opensearch, cluster)
    assert found.keys() == ids(0, 3000)
    assert encode(verdict(id=EventId("o.7"))) == encode(Verdict(**without_type(found["o.7"])))


def without_type(source: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name != "type"}


@pytest.mark.parametrize("together", [True, False])
def test_a_higher_revision_supersedes_and_a_lower_one_that_comes_late_does_not(
    opensearch: LocalOpenSearch, cluster: IndexCluster, *, together: bool
) -> None:
    said = [
        encode(verdict(label="suspicious", revision=1)),
        encode(verdict(label="benign", revision=CENTRAL)),
        encode(verdict(label="critical", revision=0)),
    ]
    with carrier(cluster) as to_index:
        for batch in [said] if together else [[each] for each in said]:
            assert list(to_index.deliver(batch)) == []

    (found,) = documents(opensearch, cluster).values()
    assert (found["label"], found["revision"]) == ("benign", CENTRAL)


def test_verdicts_stand_by_the_day_of_receipt_and_are_searched_as_one(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    midnight = 1_700_006_400_000
    with carrier(cluster) as to_index:
        to_index.deliver(
            [*payloads(0, 3, received_at_ms=midnight - 1), *payloads(3, 5, received_at_ms=midnight + DAY_MS - 1)]
        )

    with closing(opensearch.client()) as client:
        days = client.indices.get_alias(index=f"{cluster.name}-*")
    assert set(days) == {f"{cluster.name}-2023.11.14", f"{cluster.name}-2023.11.15"}
    assert documents(opensearch, cluster).keys() == ids(0, 5)


def test_analysts_find_words_fields_and_context_and_count_them(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    found = verdict(
        text="Failed password for root from 10.0.0.7 port 22 ssh2",
        fields={"source": ("10.0.0.7",), "seen": ("2023-11-14", "never")},
        context={"owner": "payments", "last.audit": "2023-11-14"},
    )
    with carrier(cluster) as to_index:
        assert list(to_index.deliver([encode(found), *payloads(2, 4, text="session opened")])) == []

    for query in (
        {"match": {"text": "password"}},
        {"match_phrase": {"text": "root from 10.0.0.7"}},
        {"term": {"fields.source": "10.0.0.7"}},
        {"term": {"fields.seen": "never"}},
        {"term": {"context.owner": "payments"}},
        {"term": {"context.last.audit": "2023-11-14"}},
        {"bool": {"filter": [{"range": {"confidence": {"gte": 0.9}}}, {"term": {"fields.seen": "2023-11-14"}}]}},
    ):
        assert documents(opensearch, cluster, query).keys() == {"o.1"}, query
    count = {"sources": {"terms": {"field": "fields.source"}}, "owners": {"terms": {"field": "context.owner"}}}
    with closing(opensearch.client()) as client:
        counted = client.search(index=cluster.name, body={"size": 0, "aggs": count})["aggregations"]
    assert {name: [bucket["key"] for bucket in found["buckets"]] for name, found in counted.items()} == {
        "sources": ["10.0.0.7"],
        "owners": ["payments"],
    }


def test_labels_of_any_number_of_tasks_make_the_mapping_no_larger(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    many = {f"label-{number}": 0.001 for number in range(1000)}
    with carrier(cluster) as to_index:
        assert list(to_index.deliver([encode(verdict(probabilities=many))])) == []

    with closing(opensearch.client()) as client:
        (mapping,) = client.indices.get_mapping(index=cluster.name).values()
    assert mapping["mappings"]["properties"]["probabilities"] == {"type": "object", "enabled": False}
    assert documents(opensearch, cluster)["o.1"]["probabilities"] == many


def test_what_a_newer_gateway_says_is_kept_though_nothing_finds_it(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    newer = encode(verdict()).replace(b'"label":', b'"mood":"gloomy","label":')
    with carrier(cluster) as to_index:
        assert list(to_index.deliver([newer])) == []

    assert documents(opensearch, cluster)["o.1"]["mood"] == "gloomy"
    assert documents(opensearch, cluster, {"term": {"mood": "gloomy"}}) == {}


def test_what_the_mapping_refuses_is_refused_and_its_neighbours_are_there(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    with carrier(cluster) as to_index:
        to_index.deliver([encode(verdict(id=EventId("first"), fields={"source": ("x",)}))])
        refusals = to_index.deliver(
            [
                *payloads(0, 10),
                encode(verdict(id=EventId("severe"), severity=2**70)),
                encode(verdict(id=EventId("blank"), fields={" ": ("x",)})),
                encode(verdict(id=EventId("nameless"), context={"": "x"})),
                encode(verdict(id=EventId("dotted"), fields={"source.port": ("x",)})),
                encode(verdict(id=EventId("wide"), fields={f"field-{number}": ("x",) for number in range(1000)})),
                encode(verdict(id=EventId("long" * 200))),
                b"nonsense",
                *payloads(10, 20),
            ]
        )

    assert {refusal.position for refusal in refusals} == set(range(10, 17))
    assert all("Preview" not in refusal.reason for refusal in refusals)
    assert documents(opensearch, cluster).keys() == {"first", *ids(0, 20)}


@pytest.mark.parametrize("block", ["write", "read_only", "read_only_allow_delete"])
def test_a_block_is_an_outage_until_it_is_lifted(
    opensearch: LocalOpenSearch, cluster: IndexCluster, block: str
) -> None:
    with carrier(cluster) as to_index, closing(opensearch.client()) as client:
        to_index.deliver(payloads(0, 5))
        client.indices.put_settings(index=cluster.name, body={f"index.blocks.{block}": True})
        with pytest.raises(UnavailableError, match=r"answers (403|429), cluster_block_exception: .*waits"):
            to_index.deliver([b"nonsense", *payloads(0, 10)])
        client.indices.put_settings(index=cluster.name, body={f"index.blocks.{block}": None})
        assert [refusal.position for refusal in to_index.deliver([b"nonsense", *payloads(0, 10)])] == [0]

    assert documents(opensearch, cluster).keys() == ids(0, 10)


def test_a_cluster_that_takes_no_more_indices_is_an_outage_and_no_verdict_s_fault(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    with carrier(cluster) as to_index, closing(opensearch.client()) as client:
        to_index.deliver(payloads(0, 1))
        client.cluster.put_settings(body={"transient": {"cluster.max_shards_per_node": 1}})
        try:
            with pytest.raises(UnavailableError, match=r"answers 400, validation_exception: .*maximum shards open"):
                to_index.deliver(payloads(1, 2, received_at_ms=DAY_MS))
        finally:
            client.cluster.put_settings(body={"transient": {"cluster.max_shards_per_node": None}})
        assert list(to_index.deliver(payloads(1, 2, received_at_ms=DAY_MS))) == []


def test_a_template_is_installed_renewed_and_never_set_back(opensearch: LocalOpenSearch, cluster: IndexCluster) -> None:
    def deliver_as_if_restarted() -> None:
        with carrier(cluster) as to_index:
            to_index.deliver(payloads(0, 1))

    def version() -> int:
        (found,) = client.indices.get_index_template(name=cluster.name)["index_templates"]
        return int(found["index_template"]["version"])

    ours = template(cluster)
    with closing(opensearch.client()) as client:
        assert "not there yet, and comes with the first delivery: version 1" in examine(cluster).words
        deliver_as_if_restarted()
        assert version() == ours["version"]
        assert examine(cluster).words.endswith("has version 1")

        client.indices.put_index_template(name=cluster.name, body={**ours, "version": 0})
        assert "has version 0, and gets version 1 with the first delivery" in examine(cluster).words
        deliver_as_if_restarted()
        assert version() == ours["version"]

        client.indices.put_index_template(name=cluster.name, body={**ours, "version": 99})
        deliver_as_if_restarted()
        assert version() == 99
        assert "has version 99, which stays; ours is 1" in examine(cluster).words


def test_a_cluster_that_comes_back_empty_has_its_template_before_the_first_verdict(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    with carrier(cluster) as to_index, closing(opensearch.client()) as client:
        to_index.deliver(payloads(0, 5))
        opensearch.stop()
        with pytest.raises(UnavailableError):
            to_index.deliver(payloads(5, 10))
        opensearch.start()
        client.indices.delete(index=f"{cluster.name}-2023.11.14")
        client.indices.delete_index_template(name=cluster.name)
        to_index.deliver(payloads(5, 10))

        (mapping,) = client.indices.get_mapping(index=cluster.name).values()
    assert mapping["mappings"]["properties"]["text"] == {"type": "match_only_text"}


def test_an_examination_says_in_words_how_the_cluster_is(opensearch: LocalOpenSearch, cluster: IndexCluster) -> None:
    well = examine(cluster)
    with closing(opensearch.client()) as client:
        client.indices.create(index=f"{cluster.prefix}-copied", body={"settings": {"number_of_replicas": 1}})
        worse = examine(cluster)
        client.indices.delete(index=f"{cluster.prefix}-copied")

    assert well.state == "ok"
    assert well.words.startswith(f"{opensearch.url}: opensearch 2.19.1, 1 node, health green; template {cluster.name} ")
    assert worse.state == "note"
    assert "health yellow: copies are missing" in worse.words


def test_a_proxy_that_takes_little_at_once_gets_smaller_requests(
    opensearch: LocalOpenSearch, cluster: IndexCluster
) -> None:
    with before(opensearch.port, most_bytes=20_000) as front:
        by_proxy = IndexCluster(url=f"http://127.0.0.1:{front.server_port}", prefix=cluster.prefix)
        with carrier(by_proxy) as to_index:
            (refusal,) = to_index.deliver(
                [*payloads(0, 100), encode(verdict(id=EventId("large"), text="x" * 30_000)), *payloads(100, 200)]
            )

    assert refusal.position == 100
    assert refusal.reason.endswith("bytes are more than it takes in a request")
    assert len(front.too_large) > 2
    assert documents(opensearch, cluster).keys() == ids(0, 200)


def test_a_request_stays_below_its_limit(opensearch: LocalOpenSearch, cluster: IndexCluster) -> None:
    with before(opensearch.port, most_bytes=20_000) as front:
        url = f"http://127.0.0.1:{front.server_port}"
        with carrier(IndexCluster(url=url, prefix=cluster.prefix, request_bytes=20_000)) as to_index:
            assert list(to_index.deliver(payloads(0, 200))) == []

    assert front.too_large == []
    assert documents(opensearch, cluster).keys() == ids(0, 200)


@pytest.mark.usefixtures("opensearch")
def test_a_node_that_takes_little_at_once_gets_smaller_requests(tmp_path: Path) -> None:
    """Not only proxies say 413."""
    node = LocalOpenSearch(tmp_path, "http.max_content_length: 100kb")
    try:
        node.start()
        cluster = IndexCluster(url=node.url)
        with carrier(cluster) as to_index:
            (refusal,) = to_index.deliver(
                [*payloads(0, 1000), encode(verdict(id=EventId("large"), text="x" * 200_000)), *payloads(1000, 1500)]
            )
        assert refusal.position == 1000
        assert documents(node, cluster).keys() == ids(0, 1500)
    finally:
        node.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, subject in (("server", "127.0.0.1"), ("client", "centre")):
        issued = authority.issue_cert(subject, common_name=subject)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    return tmp_path


def test_tls_with_certificates_on_both_sides_and_a_password(
    opensearch: LocalOpenSearch, cluster: IndexCluster, certificates: Path
) -> None:
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    listening.load_verify_locations(certificates / "ca.pem")
    listening.verify_mode = ssl.CERT_REQUIRED
    ca, certificate, key = (str(certificates / name) for name in ("ca.pem", "client.pem", "client.key"))

    with before(opensearch.port, tls=listening, password="hunter2") as front:  # noqa: S106 - a test's

        def connecting(password: str, tls: ssl.SSLContext | None) -> IndexCluster:
            return IndexCluster(
                url=f"https://127.0.0.1:{front.server_port}",
                prefix=cluster.prefix,
                username="headwater",
                password=password,
                tls=tls,
            )

        ours = client_context("index", ca, certificate, key)
        with carrier(connecting("hunter2", ours)) as to_index:
            assert list(to_index.deliver(payloads(0, 10))) == []
        for wrong, reason in (
            (connecting("hunter1", ours), "HTTP 401 Unauthorized: look at user name and password"),
            (connecting("hunter2", client_context("index", ca)), "EOF|reset|Broken pipe|certificate required"),
            (connecting("hunter2", None), "certificate verify failed"),
        ):
            with carrier(wrong) as to_index, pytest.raises(UnavailableError, match=reason):
                to_index.deliver(payloads(10, 20))
            with pytest.raises(UnavailableError, match=reason):
                examine(wrong)

    assert documents(opensearch, cluster).keys() == ids(0, 10)


@contextmanager
def courier(tmp_path: Path, cluster: IndexCluster) -> Iterator[tuple[CourierSink[Verdict], FarEnd]]:
    """The sink as the flow has it, and where its dead letters go."""
    buried = FarEnd()
    letters: CourierSink[DeadLetter] = CourierSink(
        "letters",
        buried.carrier,
        lambda found: [encode(each) for each in found],
        tmp_path / "letters.sqlite3",
        stop=Event(),
    )
    sink: CourierSink[Verdict] = CourierSink(
        "index",
        lambda: IndexCarrier(cluster),
        lambda found: [encode(each) for each in found],
        tmp_path / "index.sqlite3",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.05, most_s=0.5)),
        dead_letters=letters,
    )
    with closing(letters), closing(sink):
        yield sink, buried


@outages
def test_nothing_is_lost_while_the_node_is_killed_and_comes_back_in_mid_stream(
    opensearch: LocalOpenSearch, cluster: IndexCluster, tmp_path: Path, away_s: float
) -> None:
    with courier(tmp_path, cluster) as (sink, buried):
        for first in range(0, 6000, 100):
            if first == 2000:
                Timer(0.05, opensearch.stop, [signal.SIGKILL]).start()
            sink.deposit(verdicts(first, first + 100))
        assert not opensearch.runs
        sleep(away_s)
        opensearch.start()

        wait_until(lambda: documents(opensearch, cluster).keys() == ids(0, 6000), "every verdict", 120.0)
    assert buried.received == []


def test_a_node_that_is_away_from_the_start_gets_everything_once_it_comes(
    opensearch: LocalOpenSearch, cluster: IndexCluster, tmp_path: Path
) -> None:
    opensearch.stop()
    with courier(tmp_path, cluster) as (sink, buried):
        for first in range(0, 1000, 100):
            sink.deposit(verdicts(first, first + 100))
        opensearch.start()

        wait_until(lambda: has_index(opensearch, cluster), "the index", 120.0)
        wait_until(lambda: documents(opensearch, cluster).keys() == ids(0, 1000), "every verdict", 120.0)
    assert buried.received == []


def has_index(opensearch: LocalOpenSearch, cluster: IndexCluster) -> bool:
    with closing(opensearch.client()) as client:
        return bool(client.indices.exists_alias(name=cluster.name))


def test_what_a_courier_brings_and_the_mapping_refuses_is_a_dead_letter_beside_its_neighbours(
    opensearch: LocalOpenSearch, cluster: IndexCluster, tmp_path: Path
) -> None:
    with courier(tmp_path, cluster) as (sink, buried):
        sink.deposit([*verdicts(0, 50), verdict(id=EventId("severe"), severity=2**70), *verdicts(50, 100)])
        wait_until(lambda: buried.received, "the dead letter")
        wait_until(lambda: documents(opensearch, cluster).keys() == ids(0, 100), "the neighbours")

    (letter,) = map(decode_dead_letter, buried.received)
    assert (letter.id, letter.reason) == ("severe", "refused-by-sink")
    assert "failed to parse field [severity]" in letter.detail
