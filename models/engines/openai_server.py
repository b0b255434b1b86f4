"""One server that speaks OpenAI's API: a few connections, and requests tried again where that helps. Owner of aiohttp.

Everything here runs in one event loop, and nothing takes longer than its caller waits. What goes wrong is one of three
things: the server is away or busy (`UnavailableError`, tried again), it refuses this request (`InputError`), or what it
answers is no answer (`UntrustedError`).
"""

from typing import Final

import aiohttp
import stamina

from models.contracts.errors import ConfigError, InputError, UnavailableError, UntrustedError
from models.engines.server_dialects import Request

_REPLY_MAX_BYTES: Final = 4 << 20
_CONNECT_S: Final = 2.0
_FIRST_WAIT_S: Final = 0.05
_MOST_WAIT_S: Final = 1.0
_QUOTED: Final = 200
_OK: Final = 200
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCKED: Final = frozenset({401, 403})
_GONE: Final = frozenset({*_LOCKED, 404, 405})  # of a request that it took before: a key or a model was taken away

# A line in the log for each attempt would be a flood where an engine hangs; what came of it is counted.
stamina.instrumentation.set_on_retry_hooks([])


class OpenAiServer:
    """A few connections to one server; made and used in one event loop."""

    def __init__(self, url: str, *, api_key: str, connections: int, attempts: int) -> None:
        self._url, self._attempts = url, attempts
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            # How long an answer may take its caller says; how long a connection may, nobody else knows.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            auto_decompress=False,  # what is bounded is what arrives
            skip_auto_headers=["Accept-Encoding"],
        )

    async def get(self, path: str) -> bytes:
        """Return what is at a path."""
        return await self._patiently("GET", path, None)

    async def post(self, request: Request) -> bytes:
        """Return the reply to a request."""
        return await self._patiently("POST", request.path, request.body)

    async def close(self) -> None:
        await self._session.close()

    async def _patiently(self, verb: str, path: str, body: bytes | None) -> bytes:
        where = f"{self._url}{path}"
        try:
            return await self._once(verb, where, body)
        except UnavailableError as error:
            first = error  # only now: what counts and waits costs as much as a request does
        reply = b""
        async for attempt in stamina.retry_context(
            on=UnavailableError,
            attempts=self._attempts,
            timeout=None,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_MOST_WAIT_S,
            wait_jitter=_FIRST_WAIT_S,
        ):
            with attempt:
                if attempt.num == 1:
                    raise first
                reply = await self._once(verb, where, body)
        return reply

    async def _once(self, verb: str, where: str, body: bytes | None) -> bytes:
        try:
            async with self._session.request(
                verb, where, data=body, headers={"content-type": "application/json"}, allow_redirects=False
            ) as response:
                reply = await _bounded(response, where)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise ConfigError(f"{where}: is no address of a server; wanted as `http://host:port`") from error
        except aiohttp.ClientResponseError as error:
            raise UntrustedError(f"{where}: {type(error).__name__}: {error}") from error
        except (aiohttp.ClientError, OSError) as error:  # a connection refused or cut, or not made in time
            raise UnavailableError(f"{where}: {type(error).__name__}: {error}") from error
        if response.status == _OK:
            return reply
        said = f"{where}: answers {response.status}"
        if body is None:  # else it might tell an event
            said = f"{said}: {reply[:_QUOTED].decode('utf-8', 'replace')}"
        if response.status in _BUSY or (body is not None and response.status in _GONE):
            raise UnavailableError(said)
        if response.status in _LOCKED:
            raise ConfigError(f"{said}; set `api_key` to one that it takes")
        raise InputError(said)


async def _bounded(response: aiohttp.ClientResponse, where: str) -> bytes:
    """Read a reply that may not be longer than any answer is."""
    reply = bytearray()
    async for chunk in response.content.iter_any():
        reply += chunk
        if len(reply) > _REPLY_MAX_BYTES:
            raise UntrustedError(f"{where}: answers with more than {_REPLY_MAX_BYTES} bytes")
    return bytes(reply)
