"""Work that asks a server and waits, done where nobody may wait: begun anew for each answer that it lacks.

A vocabulary asks its tokeniser and goes on with what it says, as if it were at hand; one behind a network is not, and
an event loop must not wait. So the work is begun, stops at the first question without an answer, the question is asked
while others work, and the work is begun again. It asks the same, since it does nothing else, and gets one step further.
Most texts are one question.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.engines.server_dialects import Request

T = TypeVar("T")


class Rehearsal:
    """Answers questions, in one event loop."""

    def __init__(self, post: Callable[[Request], Awaitable[bytes]]) -> None:
        self._post = post
        self._known: dict[Request, bytes] = {}

    def ask(self, request: Request) -> bytes:
        """Return the reply, for work that is being done."""
        if request not in self._known:
            raise _NotYetAsked(request)
        return self._known[request]

    async def do(self, work: Callable[[], T]) -> T:
        """Return what comes of the work, which waits for nothing and changes nothing."""
        known: dict[Request, bytes] = {}
        while True:
            self._known = known  # nobody else works until the next question
            try:
                return work()
            except _NotYetAsked as question:
                lacking = question.request
            known[lacking] = await self._post(lacking)


class _NotYetAsked(Exception):  # noqa: N818 # no error, and it never leaves this module
    def __init__(self, request: Request) -> None:
        self.request = request
