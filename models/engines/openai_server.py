"""One server that speaks OpenAI's API: requests with a time limit, tried again where that helps. The importer of httpx.

Everything here runs in one event loop. What goes wrong is one of four things: the server is away or busy
(`UnavailableError`, tried again), the time is up (`TimeoutError`), it refuses this request (`InputError`), or its reply
is none (`UntrustedError`).
"""

from typing import Final, Self

import httpx
import msgspec
import stamina

from models.contracts.errors import ConfigError, InputError, UnavailableError, UntrustedError
from models.engines.server_dialects import Request

_REPLY_MAX_BYTES: Final = 4 << 20
_CONNECT_S: Final = 2.0
_FIRST_WAIT_S: Final = 0.05
_MOST_WAIT_S: Final = 1.0
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCKED: Final = frozenset({401, 403})

# A line in the log for each attempt would be a flood where an engine hangs; what came of it is counted.
stamina.instrumentation.set_on_retry_hooks([])


class OpenAiServer:
    """A few connections to one server."""

    def __init__(self, url: str, *, api_key: str, connections: int, attempts: int) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: this is no address.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._attempts = attempts
        try:
            self._client = httpx.AsyncClient(
                base_url=self.url,
                headers={"authorization": f"Bearer {api_key}"} if api_key else {},
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                # How long an answer may take its caller says; how long a connection may, nobody else knows.
                timeout=httpx.Timeout(None, connect=_CONNECT_S),
                trust_env=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"{url}: is no address of a server: {error}") from error
        if self._client.base_url.scheme not in ("http", "https") or not self._client.base_url.host:
            raise ConfigError(f"{url}: is no address of a server; wanted as `http://host:port`")

    async def get(self, path: str) -> bytes:
        """Return what is at a path."""
        return await self._patiently("GET", path, b"")

    async def post(self, request: Request) -> bytes:
        """Return the reply to a request."""
        return await self._patiently("POST", request.path, msgspec.json.encode(request.body))

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _patiently(self, verb: str, path: str, body: bytes) -> bytes:
        async for attempt in stamina.retry_context(
            on=UnavailableError,
            attempts=self._attempts,
            timeout=None,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_MOST_WAIT_S,
            wait_jitter=_FIRST_WAIT_S,
        ):
            with attempt:
                return await self._once(verb, path, body)
        raise AssertionError  # it ends by an answer or an error

    async def _once(self, verb: str, path: str, body: bytes) -> bytes:
        where = f"{self.url}{path}"
        try:
            async with self._client.stream(
                verb, path, content=body, headers={"content-type": "application/json"} if body else {}
            ) as response:
                reply = await _bounded(response, where)
        except httpx.TransportError as error:  # a refused, cut or garbled connection; a time limit of its own
            raise UnavailableError(f"{where}: {type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise UntrustedError(f"{where}: {type(error).__name__}: {error}") from error
        status = response.status_code
        if status == httpx.codes.OK:
            return reply
        said = f"{where}: answers {status}: {reply[:200].decode('utf-8', 'replace')}"
        if status in _BUSY:
            raise UnavailableError(said)
        if status in _LOCKED:
            raise ConfigError(f"{said}; set `api_key` to one that it takes")
        raise InputError(said)


async def _bounded(response: httpx.Response, where: str) -> bytes:
    """Read a reply that may not be longer than any answer of ours is."""
    reply = bytearray()
    async for chunk in response.aiter_bytes():
        reply += chunk
        if len(reply) > _REPLY_MAX_BYTES:
            raise UntrustedError(f"{where}: answers with more than {_REPLY_MAX_BYTES} bytes")
    return bytes(reply)
