"""A real HTTP server that speaks as vLLM's does, with a vocabulary of single bytes, and does whatever a test wants.

It stands in for engines that misbehave in ways no real one can be made to; that real ones are understood, the tests in
`tests/real` and `tests/vllm` show.
"""

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from models.engines.hugging_face import _BYTES

Body = dict[str, Any]
Reply = tuple[int, bytes]
MARKS = {256: "<|endoftext|>", 257: "<|im_start|>", 258: "<|im_end|>", 259: "[PAD7]"}
_WRITTEN = {byte: letter for letter, byte in _BYTES.items()}
NOTHING: Reply = (0, b"")  # closes the connection without a word


class EngineServer:
    """`does` may answer a request in the server's place; it is called in a thread of the request's own."""

    def __init__(self, model: str = "tiny", port: int = 0) -> None:
        self.model = model
        self.does: Callable[[str, Body], Reply | None] = lambda _path, _body: None
        self.requests: Counter[str] = Counter()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.engine = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Let go of the port, and of every connection."""
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, path: str, body: Body) -> Reply:
        with self._lock:
            self.requests[path] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self.does(path, body)
            return reply or (200, json.dumps(self._proper(path, body)).encode())
        finally:
            with self._lock:
                self._at_once -= 1

    def _proper(self, path: str, body: Body) -> Body:
        if path == "/v1/models":
            return {"data": [{"id": self.model, "owned_by": "vllm", "max_model_len": 2048}]}
        if path == "/tokenizer_info":
            added = {str(number): mark for number, mark in MARKS.items()}
            return {"added_tokens_decoder": added, "bos_token": MARKS[256], "eos_token": MARKS[256]}
        if path == "/tokenize":
            tokens = tokenised(body["prompt"])
            return {"tokens": tokens, "token_strs": [MARKS.get(token) or _WRITTEN[token] for token in tokens]}
        if "structured_outputs" in body:
            return {"choices": [{"text": "\nsource: root\ntechnique: T1110\nobservable: root; 203.0.113.9\n"}]}
        top = {
            f"token_id:{token}": math.log(share)
            for token, share in shares(body["prompt"], body["logprob_token_ids"]).items()
        }
        return {"choices": [{"text": "x", "logprobs": {"top_logprobs": [top]}}]}


def tokenised(text: str) -> list[int]:
    """Tokenise as Hugging Face's tokenisers do, which find marks in any text."""
    for number, mark in MARKS.items():
        if mark in text:
            before, _, behind = text.partition(mark)
            return [*tokenised(before), number, *tokenised(behind)]
    return list(text.encode())


def shares(prompt: list[int], tokens: list[int]) -> dict[int, float]:
    """The same prompt has the same probabilities everywhere."""
    drawn = hashlib.sha256(repr(prompt).encode()).digest()
    weights = [1 + drawn[at % len(drawn)] for at in range(len(tokens))]
    return {token: weight / (1.1 * sum(weights)) for token, weight in zip(tokens, weights, strict=True)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    engine: EngineServer

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def close_all(self) -> None:
        for connection in self._open:
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: that a client goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, body: Body) -> None:
        status, reply = self.server.engine.answer(self.path, body)
        if (status, reply) == NOTHING:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
