"""Verdicts to a search index: OpenSearch's `_bulk`, a document per event, of which the highest revision stands.

* A document's id is the event's, its version the verdict's revision, as `external_gte`: a repeat writes the same once
  more, a higher revision takes the place of a lower one, and a lower one that comes late finds that it is not needed.
* There is an index for each day (UTC) on which gateways received events. All revisions of an event have one time of
  receipt, so they meet in one index. A data stream would not do: it takes no versions.
* A request is answered document by document. What says that a document will never be taken is a refusal; everything
  else is an outage, and the whole batch comes again, which changes nothing about what was taken.
* The index template is seen to before the first document of a day, and after every outage. It never replaces a newer
  one.
"""

import logging
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct
from opensearchpy import NotFoundError, OpenSearch, OpenSearchException, TransportError

from dataflows.connectors.courier import Refusal
from dataflows.connectors.tls import client_context
from dataflows.running.findings import Finding
from models.contracts import wire
from models.contracts.errors import ConfigError, InputError, UnavailableError

T = TypeVar("T")

IndexPrefix = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""What OpenSearch takes as the beginning of an index's name."""

_TEMPLATE = Path(__file__).with_name("index_template.json")
_MOST_ID_BYTES = 512
_MOST_REASON = 300
_TOO_LARGE = 413
_SUPERSEDED = 409
# Of the types of failure with status 400, these say something of the document. Others do not: `validation_exception`
# is a cluster with too many shards, and `index_closed_exception` an operator at work.
_OF_THE_DOCUMENT = frozenset(
    (
        "mapper_parsing_exception",
        "strict_dynamic_mapping_exception",
        "document_parsing_exception",  # the first, as Elasticsearch calls it
        "illegal_argument_exception",
    )
)
_NOT_OF_THE_DOCUMENT = ("no write index", "pipeline with id")  # illegal arguments of whoever set up the index
_REMEDIES = {401: "look at user name and password", 404: "look at the URL"}
_HEALTH = {
    "green": "health green",
    "yellow": "health yellow: copies are missing, and one more failure would lose what is indexed",
    "red": "health red: some of what is indexed cannot be reached; see `_cluster/allocation/explain`",
}


class IndexCluster(Struct, frozen=True, kw_only=True):
    """Where the index is, and who we are there."""

    url: str  # without a port: 9200, or 443 with https
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None  # for https; None: what the system trusts
    prefix: IndexPrefix = "headwater"  # of the names of indices, alias and template
    request_bytes: int = 900_000  # of one request; proxies let a megabyte through by default
    timeout_s: float = 30.0  # of one request

    def __post_init__(self) -> None:
        """Read the URL.

        Raises:
            ConfigError: it is none of a cluster.
        """
        found = self.url if "@" not in self.url else "one with a password in it"
        try:
            url = urlsplit(self.url)
            sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and "@" not in self.url
        except ValueError:
            sound = False
        if not sound:
            raise ConfigError(
                f"search index: `url`: found {found}, wanted http://host:port or https://host:port; user name and "
                "password have keys of their own"
            )

    @property
    def name(self) -> str:
        """What the template is called, and the alias under which all days are searched."""
        return f"{self.prefix}-verdicts"


class Document(Struct, frozen=True):
    """A verdict on its way."""

    position: int  # in the batch
    index: str
    lines: bytes  # of the request


class Failure(Struct, frozen=True):
    """What OpenSearch says is wrong."""

    type: str
    reason: str | None = None
    caused_by: "Failure | None" = None

    def __str__(self) -> str:
        # A parser shows what it could not parse, and an event's text is nothing for a log.
        said = (self.reason or "").partition(" Preview of field's value")[0]
        if said == "failed to parse" and self.caused_by is not None:
            said = f"{said}: {self.caused_by.reason}"
        return f"{self.type}: {said}"[:_MOST_REASON]


class Outcome(Struct, frozen=True):
    """What became of one document."""

    status: int
    error: Failure | None = None


class _Item(Struct, frozen=True):
    index: Outcome


class _Bulk(Struct, frozen=True):
    items: list[_Item]


class _Version(Struct, frozen=True):
    version: int = 0


class _Template(Struct, frozen=True):
    index_template: _Version


class _Templates(Struct, frozen=True):
    index_templates: tuple[_Template, ...]


class _Release(Struct, frozen=True):
    number: str
    distribution: str = "elasticsearch"  # which does not say


class _About(Struct, frozen=True):
    version: _Release


class _Health(Struct, frozen=True):
    status: str
    number_of_nodes: int


class _Head(Struct, frozen=True, tag="verdict/1"):
    """What decides where a verdict goes; the rest of it passes as it came."""

    id: Annotated[str, Meta(min_length=1)]
    received_at_ms: Annotated[int, Meta(ge=0, le=253_402_300_799_999)]  # the year 9999
    revision: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class IndexCarrier:
    """One client of one cluster."""

    def __init__(self, cluster: IndexCluster) -> None:
        self._cluster = cluster
        self._client = _client(cluster)
        self._prepared: set[str] = set()

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        documents: list[Document] = []
        refusals: list[Refusal] = []
        for position, payload in enumerate(payloads):
            try:
                documents.append(document(position, payload, self._cluster.name))
            except InputError as error:
                refusals.append(Refusal(position, str(error)))
        try:
            self._prepare({document.index for document in documents})
            for request in requests(documents, self._cluster.request_bytes):
                refusals += self._index(request)
        except (OpenSearchException, UnavailableError) as error:
            self._prepared.clear()  # who knows what comes back
            raise UnavailableError(
                f"search index {self._cluster.url}: {_reason(error)}; what is to be indexed waits"
            ) from error
        return refusals

    def close(self) -> None:
        self._client.close()

    def _prepare(self, indices: set[str]) -> None:
        if not indices <= self._prepared:
            _install_template(self._client, self._cluster)
            self._prepared |= indices

    def _index(self, documents: Sequence[Document]) -> list[Refusal]:
        body = b"".join(document.lines for document in documents)
        timeout_s = self._cluster.timeout_s
        try:
            answer = self._client.bulk(
                body=body,
                filter_path="items.*.status,items.*.error",
                request_timeout=timeout_s,
                timeout=f"{timeout_s * 500:.0f}ms",  # it says what it waits for before we give up
            )
        except TransportError as error:
            if error.status_code != _TOO_LARGE:
                raise
            if len(documents) == 1:
                return [Refusal(documents[0].position, f"{len(body)} bytes are more than it takes in a request")]
            half = len(documents) // 2
            return self._index(documents[:half]) + self._index(documents[half:])
        return refused(documents, [item.index for item in _read(answer, _Bulk).items])


def document(position: int, payload: bytes, name: str) -> Document:
    """Return a verdict as what `_bulk` reads.

    Raises:
        InputError: it is no verdict, or none that an index has room for.
    """
    head = wire.decode_json(payload, _Head, "verdict")
    if len(head.id.encode()) > _MOST_ID_BYTES:
        raise InputError(f"verdict: an `id` of {len(head.id.encode())} bytes, wanted at most {_MOST_ID_BYTES}")
    day = datetime.fromtimestamp(head.received_at_ms // 1000, UTC)
    index = f"{name}-{day:%Y.%m.%d}"
    action = {"_index": index, "_id": head.id, "version": head.revision, "version_type": "external_gte"}
    # In JSON a line break stands between two words, if anywhere; here the next line would be an action.
    source = payload.replace(b"\n", b" ")
    return Document(position, index, b"%b\n%b\n" % (msgspec.json.encode({"index": action}), source))


def requests(documents: Sequence[Document], most_bytes: int) -> Iterator[Sequence[Document]]:
    """Part documents into requests; one that is larger than `most_bytes` goes alone."""
    request: list[Document] = []
    size = 0
    for found in documents:
        if request and size + len(found.lines) > most_bytes:
            yield request
            request, size = [], 0
        request.append(found)
        size += len(found.lines)
    if request:
        yield request


def refused(documents: Sequence[Document], outcomes: Sequence[Outcome]) -> list[Refusal]:
    """Return which documents will never be taken, now that all others are.

    Raises:
        UnavailableError: some are not taken yet, for a reason that is not theirs.
    """
    if len(outcomes) != len(documents):
        raise UnavailableError(f"it answered for {len(outcomes)} documents, not for {len(documents)}")
    refusals = []
    for found, outcome in zip(documents, outcomes, strict=True):
        if 200 <= outcome.status < 300 or outcome.status == _SUPERSEDED:
            continue
        if not _is_of_the_document(outcome):
            raise UnavailableError(f"{found.index} answers {outcome.status}, {outcome.error or 'and no reason'}")
        refusals.append(Refusal(found.position, str(outcome.error)))
    return refusals


def template(cluster: IndexCluster) -> dict[str, Any]:
    """Return the index template that is shipped, by the names of this cluster's indices."""
    shipped: dict[str, Any] = msgspec.json.decode(_TEMPLATE.read_bytes())
    shipped["index_patterns"] = [f"{cluster.name}-*"]
    shipped["template"]["aliases"] = {cluster.name: {}}
    return shipped


def examine(cluster: IndexCluster) -> Finding:
    """Say whether the cluster answers, how it is, and which template it has. Changes nothing.

    Raises:
        UnavailableError: it does not answer, or not us.
    """
    client = _client(cluster)
    try:
        about = _read(client.info(), _About).version
        health = _read(client.cluster.health(), _Health)
        installed = _installed_version(client, cluster)
    except (OpenSearchException, UnavailableError) as error:
        raise UnavailableError(f"search index {cluster.url}: {_reason(error)}") from error
    finally:
        client.close()
    ours = template(cluster)["version"]
    if installed is None:
        said = f"is not there yet, and comes with the first delivery: version {ours}"
    elif installed < ours:
        said = f"has version {installed}, and gets version {ours} with the first delivery"
    elif installed > ours:
        said = f"has version {installed}, which stays; ours is {ours}"
    else:
        said = f"has version {ours}"
    nodes = f"{health.number_of_nodes} node{'s' if health.number_of_nodes > 1 else ''}"
    words = f"{cluster.url}: {about.distribution} {about.number}, {nodes}, {_HEALTH.get(health.status, health.status)}"
    state: Literal["ok", "note"] = "ok" if health.status == "green" else "note"
    return Finding("index", state, f"{words}; template {cluster.name} {said}")


def _client(cluster: IndexCluster) -> OpenSearch:
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it says nothing that does not come as an error, too
    tls = cluster.tls
    if tls is None and cluster.url.startswith("https:"):
        tls = client_context(f"search index {cluster.url}")
    return OpenSearch(
        [cluster.url],
        http_auth=(cluster.username, cluster.password) if cluster.username else None,
        ssl_context=tls,
        timeout=cluster.timeout_s,
        max_retries=0,  # the courier's affair
    )


def _install_template(client: OpenSearch, cluster: IndexCluster) -> None:
    installed, ours = _installed_version(client, cluster), template(cluster)
    if installed is None or installed < ours["version"]:
        client.indices.put_index_template(name=cluster.name, body=ours)


def _installed_version(client: OpenSearch, cluster: IndexCluster) -> int | None:
    try:
        answer = client.indices.get_index_template(name=cluster.name)
    except NotFoundError:
        return None
    return max((found.index_template.version for found in _read(answer, _Templates).index_templates), default=0)


def _read(answer: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise UnavailableError(f"it does not answer as OpenSearch does: {error}") from error


def _is_of_the_document(outcome: Outcome) -> bool:
    error = outcome.error
    return (
        outcome.status == 400
        and error is not None
        and error.type in _OF_THE_DOCUMENT
        and not (error.reason or "").startswith(_NOT_OF_THE_DOCUMENT)
    )


def _reason(error: Exception) -> str:
    if not isinstance(error, TransportError):
        return str(error)
    info: Any = error.info
    try:
        said = str(msgspec.convert(info["error"], Failure))
    except (LookupError, TypeError, msgspec.ValidationError):  # a proxy's words, or a connection's
        said = " ".join(str(error.error).split())[:_MOST_REASON]
    if not isinstance(error.status_code, int):
        return said
    remedy = _REMEDIES.get(error.status_code, "")
    return f"HTTP {error.status_code} {said}" + (f": {remedy}" if remedy else "")
