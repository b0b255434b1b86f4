import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from central.deliveries.index import (
    Document,
    Failure,
    IndexCarrier,
    IndexCluster,
    Outcome,
    document,
    examine,
    refused,
    requests,
    template,
)
from dataflows.connectors.courier import Refusal
from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.verdict import Verdict
from models.contracts.wire import encode
from tests.conftest import ROOT
from tests.fakes.verdicts import any_verdict, verdict

TAKEN = Outcome(201)


def documents(count: int) -> list[Document]:
    return [Document(position, "headwater-verdicts-2023.11.14", b"x" * 10) for position in range(count)]


def failed(status: int, kind: str, reason: str = "") -> Outcome:
    return Outcome(status, Failure(kind, reason))


def test_a_document_is_named_by_the_event_its_revision_and_the_day_of_its_receipt() -> None:
    payload = encode(verdict(id="edge-7.s/1", revision=1001, received_at_ms=1_700_006_399_999))

    found = document(4, payload, "headwater-verdicts")

    action, source, end = found.lines.split(b"\n")
    assert (found.position, found.index) == (4, "headwater-verdicts-2023.11.14")
    assert json.loads(action) == {
        "index": {
            "_index": "headwater-verdicts-2023.11.14",
            "_id": "edge-7.s/1",
            "version": 1001,
            "version_type": "external_gte",
        }
    }
    assert (source, end) == (payload, b"")


def test_a_millisecond_later_is_the_next_day() -> None:
    payload = encode(verdict(received_at_ms=1_700_006_400_000))

    assert document(0, payload, "h").index == "h-2023.11.15"


@given(any_verdict().filter(lambda found: 0 < len(found.id.encode()) <= 512))
def test_every_verdict_is_two_lines_of_which_the_second_says_all_of_it(found: Verdict) -> None:
    lines = document(0, encode(found), "h").lines.split(b"\n")

    assert len(lines) == 3
    assert msgspec.json.decode(lines[1], type=Verdict) == found


def test_a_verdict_that_is_written_in_many_lines_cannot_smuggle_an_action_in() -> None:
    pretty = msgspec.json.format(encode(verdict()), indent=2)
    smuggled = pretty.replace(b'"text"', b'"x":\n{"delete":{"_index":"h","_id":"o.2"}}\n,"text"')

    lines = document(0, smuggled, "h").lines.split(b"\n")

    assert len(lines) == 3
    assert msgspec.json.decode(lines[1], type=Verdict) == verdict()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{nonsense", "verdict: JSON is malformed"),
        (b'{"type":"incident/1","id":"i","received_at_ms":1}', "Invalid value 'incident/1'"),
        (encode(verdict(id="")), r"length >= 1 - at `\$.id`"),
        (encode(verdict(id="ü" * 300)), "an `id` of 600 bytes, wanted at most 512"),
        (encode(verdict(revision=2**63)), r"at `\$.revision`"),
        (encode(verdict(received_at_ms=2**62)), r"at `\$.received_at_ms`"),
    ],
)
def test_what_an_index_has_no_room_for_is_the_records_fault(payload: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        document(0, payload, "h")


@given(st.lists(st.integers(1, 50), max_size=40))
def test_requests_keep_order_and_size_and_leave_nothing_out(sizes: list[int]) -> None:
    found = [Document(position, "h", b"x" * size) for position, size in enumerate(sizes)]

    parted = list(requests(found, 30))

    assert [each for request in parted for each in request] == found
    assert all(len(request) == 1 or sum(len(each.lines) for each in request) <= 30 for request in parted)
    assert all(parted)


@pytest.mark.parametrize("status", [200, 201, 409])
def test_what_is_there_already_is_success_whatever_its_revision(status: int) -> None:
    assert refused(documents(2), [TAKEN, failed(status, "version_conflict_engine_exception")]) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mapper_parsing_exception", "failed to parse field [severity] of type [long] in document with id 'o.1'."),
        ("strict_dynamic_mapping_exception", "mapping set to strict"),
        ("document_parsing_exception", "[1:2] failed to parse"),
        ("illegal_argument_exception", "Limit of total fields [1000] has been exceeded"),
        ("illegal_argument_exception", "object field cannot contain only whitespace: ['fields. ']"),
    ],
)
def test_what_the_mapping_refuses_is_refused_and_its_neighbours_are_not(kind: str, reason: str) -> None:
    assert refused(documents(3), [TAKEN, failed(400, kind, reason), TAKEN]) == [Refusal(1, f"{kind}: {reason}")]


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (429, "cluster_block_exception", "index [h] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded …"),
        (403, "cluster_block_exception", "index [h] blocked by: [FORBIDDEN/8/index write (api)];"),
        (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]"),
        (429, "rejected_execution_exception", "rejected execution of coordinating operation"),
        (503, "unavailable_shards_exception", "primary shard is not active"),
        (500, "illegal_state_exception", ""),
        (404, "index_not_found_exception", "no such index [h]"),
        (400, "validation_exception", "this action would add [2] total shards, but this cluster has [1000]/[1000]"),
        (400, "index_closed_exception", "closed"),
        (400, "invalid_index_name_exception", "Invalid index name [H], must be lowercase"),
        (400, "illegal_argument_exception", "no write index is defined for alias [h]."),
        (400, "illegal_argument_exception", "pipeline with id [p] does not exist"),
    ],
)
def test_what_the_cluster_cannot_do_now_is_an_outage_whatever_else_is_refused(
    status: int, kind: str, reason: str
) -> None:
    outcomes = [failed(400, "mapper_parsing_exception"), TAKEN, failed(status, kind, reason)]

    with pytest.raises(UnavailableError) as raised:
        refused(documents(3), outcomes)

    assert str(raised.value) == f"headwater-verdicts-2023.11.14 answers {status}, {kind}: {reason}"


def test_a_failure_without_a_reason_is_an_outage() -> None:
    with pytest.raises(UnavailableError, match="answers 400, and no reason"):
        refused(documents(1), [Outcome(400)])


def test_an_answer_for_fewer_documents_is_an_outage() -> None:
    with pytest.raises(UnavailableError, match="answered for 1 documents, not for 2"):
        refused(documents(2), [TAKEN])


def test_a_refusal_shows_nothing_of_what_could_not_be_parsed() -> None:
    shown = "failed to parse field [n] of type [long] in document with id 'a'. Preview of field's value: 'root:hunter2'"
    cause = Failure("illegal_argument_exception", 'For input string: "root:hunter2"')

    assert str(Failure("mapper_parsing_exception", shown, cause)) == (
        "mapper_parsing_exception: failed to parse field [n] of type [long] in document with id 'a'."
    )


def test_a_refusal_that_names_no_field_says_why() -> None:
    cause = Failure("illegal_argument_exception", "field name cannot be an empty string")

    assert str(Failure("mapper_parsing_exception", "failed to parse", cause)) == (
        "mapper_parsing_exception: failed to parse: field name cannot be an empty string"
    )


def test_the_template_maps_all_that_a_verdict_says_and_nothing_else() -> None:
    mapped = template(IndexCluster(url="http://search"))["template"]["mappings"]["properties"]

    assert set(mapped) == {"type", *Verdict.__struct_encode_fields__}


def test_the_template_is_for_the_indices_that_are_written() -> None:
    cluster = IndexCluster(url="http://search", prefix="acme")
    found = template(cluster)

    assert found["index_patterns"] == ["acme-verdicts-*"]
    assert list(found["template"]["aliases"]) == ["acme-verdicts"]
    assert document(0, encode(verdict()), cluster.name).index == "acme-verdicts-2023.11.14"


def test_the_template_as_shipped_is_that_of_the_prefix_by_default() -> None:
    shipped = msgspec.json.decode((ROOT / "central" / "deliveries" / "index_template.json").read_bytes())

    assert template(IndexCluster(url="http://search")) == shipped


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("search:9200", "search:9200"),
        ("ftp://search", "ftp://search"),
        ("http://", "http://"),
        ("http://search:99999", "http://search:99999"),
        ("https://me:hunter2@search", "one with a password in it"),
    ],
)
def test_a_url_of_no_cluster_is_refused_and_no_password_shown(url: str, shown: str) -> None:
    with pytest.raises(ConfigError, match=f"^search index: `url`: found {shown}, wanted http://host:port"):
        IndexCluster(url=url)


def test_nothing_is_asked_before_the_first_delivery_nor_for_no_payloads() -> None:
    with closing(IndexCarrier(IndexCluster(url="http://127.0.0.1:9"))) as carrier:
        assert list(carrier.deliver([])) == []


def test_a_far_end_that_never_answers_is_an_outage_in_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            closing(IndexCarrier(IndexCluster(url=url, timeout_s=0.2))) as carrier,
            pytest.raises(UnavailableError, match=f"search index {url}: .*timed out.*waits"),
        ):
            carrier.deliver([encode(verdict())])


@contextmanager
def answering(status: int, kind: str, body: bytes) -> Iterator[str]:
    """A far end that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET  # noqa: N815 - their names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "kind", "body", "reason"),
    [
        (200, "application/json", b"{}", "does not answer as OpenSearch does"),
        (200, "application/json", b'{"index_templates": []}', "does not answer as OpenSearch does"),
        (200, "text/html", b"<h1>Welcome</h1>", "Unknown mimetype, unable to deserialize: text/html"),
        (502, "text/html", b"<h1>\r\nBad   Gateway\r\n</h1>", "HTTP 502 <h1> Bad Gateway </h1>;"),
        (401, "text/plain", b"Unauthorized", "HTTP 401 Unauthorized: look at user name and password;"),
        (400, "text/html", b"The plain HTTP request was sent to HTTPS port", "HTTP 400 The plain HTTP request"),
        (
            403,
            "application/json",
            b'{"error":{"type":"security_exception","reason":"no permissions for [x]"},"status":403}',
            r"HTTP 403 security_exception: no permissions for \[x\];",
        ),
        (403, "application/json", b'{"message":"Forbidden"}', r'HTTP 403 {"message":"Forbidden"};'),
        (503, "application/json", b'{"error":{"message":"later"}}', r"HTTP 503 {'message': 'later'};"),
        (302, "text/html", b"moved", "HTTP 302 moved;"),
    ],
)
def test_an_answer_that_is_not_of_an_index_is_an_outage_in_words(
    status: int, kind: str, body: bytes, reason: str
) -> None:
    with (
        answering(status, kind, body) as url,
        closing(IndexCarrier(IndexCluster(url=url))) as carrier,
        pytest.raises(UnavailableError, match=reason),
    ):
        carrier.deliver([encode(verdict())])


def test_a_cluster_that_is_away_is_said_to_be() -> None:
    with pytest.raises(UnavailableError, match=r"search index http://127\.0\.0\.1:9: .*Connection refused"):
        examine(IndexCluster(url="http://127.0.0.1:9"))
