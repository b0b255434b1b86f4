"""The other ways to label an event with the same GGUF, each written as its good users write it. One thread each."""

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import Llama, LlamaGrammar

from bench.vendored import server
from models.contracts.task import Task
from models.fields import ABSENT, field_literal
from models.llama import Attention, Batch, Context, Model

CONTEXT_TOKENS = 1024
# What makes llama-server fastest here: its flash attention is slow below 64 rows a batch, and its cache of whole
# prompts copies the state at every request. Its defaults run beside it, and the best counts.
SERVER_FLAGS = ("-fa", "off", "--cache-ram", "0")
_START_S = 60


class HighLevel:
    """llama-cpp-python's `Llama`, one event a call; it reuses the prefix that two calls share by itself.

    What stands before every event is tokenised once: given as text, it would be at each call, some 6 % of a label.
    """

    def __init__(self, model: Path, before: str, after: str) -> None:
        self._llama = Llama(str(model), n_ctx=CONTEXT_TOKENS, n_threads=1, n_threads_batch=1, verbose=False)
        head, self._gap = _cut(before)
        self._before = self._llama.tokenize(head.encode(), add_bos=True, special=True)
        self._after = after

    def complete(self, events: Sequence[str], **options: Any) -> list[str]:
        """Return what the model writes behind each event."""
        return [self._completion(event, options) for event in events]

    def close(self) -> None:
        self._llama.close()

    def _completion(self, event: str, options: dict[str, Any]) -> str:
        rest = self._llama.tokenize(f"{self._gap}{event}{self._after}".encode(), add_bos=False, special=False)
        completion: Any = self._llama.create_completion([*self._before, *rest], temperature=0.0, **options)
        return str(completion["choices"][0]["text"])


def _cut(before: str) -> tuple[str, str]:
    """Cut the blanks off the end: a vocabulary joins a blank to the word behind it, and apart they are two tokens."""
    head = before.rstrip(" ")
    return head, before[len(head) :]


def label_grammar(task: Task) -> LlamaGrammar:
    """Return a grammar of JSON with a label and a confidence; tight, so that it cannot wander."""
    labels = " | ".join(f'"\\"{name}\\""' for name in task.label_names)
    return LlamaGrammar.from_string(
        f'root ::= "{{\\"label\\":" ({labels}) ",\\"confidence\\":0." [0-9] [0-9] "}}"', verbose=False
    )


def fields_grammar(task: Task, value_characters: int) -> LlamaGrammar:
    """Return a grammar of just what our own transcript is: the peer writes the same bytes, token by token."""
    rules, lines = [], []
    for number, field in enumerate(task.fields):
        value = f"[^;\\n] [^;\\n]{{0,{value_characters - 1}}}"
        if field.kind == "choice":
            value = " | ".join(f'"{choice}"' for choice in (*field.choices, ABSENT))
        more = f'(";" " " value{number}){{0,{field.max_values - 1}}}' if field.max_values > 1 else ""
        rules.append(f"value{number} ::= {value}")
        lines.append(f'"{field_literal(field)} " value{number} {more}'.replace("\n", "\\n"))
    with_fields = " | ".join(f'" {name}"' for name in task.fields_for)
    others = [f'" {name}"' for name in task.label_names if name not in task.fields_for]
    root = f'root ::= ({with_fields}) {" ".join(lines)} "\\n"'
    if others:
        root += f' | ({" | ".join(others)}) "\\n"'
    return LlamaGrammar.from_string("\n".join([root, *rules]), verbose=False)


class Server:
    """llama-server over loopback with keep-alive: one client a slot, the prompt's prefix cached and tokenised once."""

    def __init__(self, model: Path, before: str, after: str, slots: int, flags: Sequence[str] = ()) -> None:
        head, self._gap = _cut(before)
        self._after = after
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [
            str(server()), "-m", str(model), "-t", "1", "-tb", "1", "-np", str(slots),
            "-c", str(CONTEXT_TOKENS * slots), "--host", "127.0.0.1", "--port", str(self._port),
            *flags,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._local = threading.local()
        self._clients = ThreadPoolExecutor(slots)
        self._wait()
        self._before = self._tokens(head)

    def one_token(self, events: Sequence[str]) -> None:
        list(self._clients.map(self._ask, events))

    def close(self) -> None:
        self._clients.shutdown()
        self._process.terminate()
        self._process.wait(timeout=_START_S)

    def _tokens(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = self._answer("/tokenize", body, "tokens")
        return tokens

    def _ask(self, event: str) -> None:
        options = {"n_predict": 1, "n_probs": 5, "temperature": 0, "cache_prompt": True}
        body = {"prompt": [*self._before, f"{self._gap}{event}{self._after}"], **options}
        self._answer("/completion", body, "completion_probabilities")

    def _answer(self, path: str, body: dict[str, Any], wanted: str) -> Any:
        content = json.dumps(body)
        try:
            status, answer = self._post(path, content)
        except (http.client.HTTPException, ConnectionError):
            # It hangs up after some seconds of silence, and after some hundred requests.
            self._local.connection.close()
            status, answer = self._post(path, content)
        found = json.loads(answer) if status == http.client.OK else {}
        if wanted not in found:
            raise RuntimeError(f"llama-server answered {status}: {answer[:200]!r}")
        return found[wanted]

    def _post(self, path: str, body: str) -> tuple[int, bytes]:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_START_S)
        connection = self._local.connection
        if connection.sock is None:
            connection.connect()  # which switches Nagle's delay off
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=1)
                connection.request("GET", "/health")
                if connection.getresponse().status == http.client.OK:
                    return
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"llama-server did not answer on port {self._port} in {_START_S} s")


class BarePrompts:
    """llama.cpp's own speed: prompts of 64 tokens with nothing in front of them, one after the other."""

    tokens = 64
    prompts = 4  # a run

    def __init__(self, model: Model, attention: Attention) -> None:
        self._context = Context(model, cells=256, rows=self.tokens, sequences=1, attention=attention)
        self._batch = Batch(self.tokens)
        self._batch.token[:] = np.random.default_rng(0).integers(0, 256, self.tokens)
        self._batch.position[:] = np.arange(self.tokens)
        self._batch.wanted[-1] = 1

    def run(self, _: Sequence[str]) -> None:
        for _prompt in range(self.prompts):
            self._context.forget(0, 0)
            self._context.decode(self._batch, 0, self.tokens)
