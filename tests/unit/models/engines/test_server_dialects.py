"""What servers answer, and what is no answer."""

import json
import math

import numpy as np
import pytest

from models.contracts.errors import ConfigError, UntrustedError
from models.engines.server_dialects import LlamaDialect, Served, VllmDialect, served

MODEL = Served(id="tiny", owned_by="vllm", max_model_len=512)
VLLM = VllmDialect(MODEL, b'{"added_tokens_decoder": {"7": "<|im_end|>"}, "chat_template": "T"}')
LLAMA = LlamaDialect(MODEL, b'{"default_generation_settings": {"n_ctx": 256}, "chat_template": ""}')


def models(*listed: dict[str, object]) -> bytes:
    return json.dumps({"object": "list", "data": listed}).encode()


def vllm_said(**top: float) -> bytes:
    return json.dumps({"choices": [{"text": "x", "logprobs": {"top_logprobs": [top]}}]}).encode()


def llama_said(chosen: tuple[int, float], *told: tuple[int, float]) -> bytes:
    first, *top = [{"id": token, "logprob": math.log(share), "bytes": [120]} for token, share in (chosen, *told)]
    return json.dumps({"choices": [{"logprobs": {"content": [{**first, "top_logprobs": top}]}}]}).encode()


def test_the_only_model_is_taken_and_another_one_by_its_name() -> None:
    one = {"id": "a", "owned_by": "vllm", "max_model_len": 9}
    other = {"id": "b", "owned_by": "llamacpp"}

    assert served(models(one), "", "http://x") == Served("a", "vllm", 9)
    assert served(models(one, other), "b", "http://x") == Served("b", "llamacpp", 0)


@pytest.mark.parametrize("wanted", ["", "c"])
def test_a_model_that_is_not_there_or_not_the_only_one_is_the_operators_to_name(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"http://x: there is .*\['a', 'b'\]; set `model`"):
        served(models({"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "vllm"}), wanted, "http://x")


def test_a_server_that_does_not_tell_its_tokens_is_refused() -> None:
    with pytest.raises(UntrustedError, match="is a server of `somebody`"):
        served(models({"id": "a", "owned_by": "somebody"}), "", "http://x")


@pytest.mark.parametrize("reply", [b"", b"<html>", b"[]", b"{}", b'{"data": 3}', b"\xff", b"[" * 100_000])
def test_a_list_of_models_that_is_none_is_refused(reply: bytes) -> None:
    with pytest.raises(UntrustedError, match="the server's list of models"):
        served(reply, "", "http://x")


def test_vllm_is_asked_about_exactly_the_answers_at_temperature_zero() -> None:
    request = VLLM.labels([1, 2], [5, 9])

    assert request.path == "/v1/completions"
    assert json.loads(request.body) == {
        "model": "tiny",
        "prompt": [1, 2],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "logprob_token_ids": [5, 9],
        "return_tokens_as_token_ids": True,
    }
    assert VLLM.read_labels(
        vllm_said(**{"token_id:3": -0.1, "token_id:9": -4.0, "token_id:5": -2.5}), [5, 9]
    ).tolist() == [-2.5, -4.0]


def test_llama_server_is_asked_for_the_most_probable_tokens_and_to_choose_a_label() -> None:
    body = json.loads(LLAMA.labels([1], [5, 9]).body)

    assert (body["prompt"], body["temperature"], body["max_tokens"]) == ([1], 0, 1)
    assert (body["logprobs"], body["logit_bias"]) == (512, [[5, 100], [9, 100]])
    assert json.loads(LLAMA.labels([1], range(600)).body)["logprobs"] == 600


def test_the_labels_that_llama_server_tells_of_have_the_probabilities_told() -> None:
    reply = llama_said((9, 0.5), (9, 0.5), (5, 0.25))

    assert np.exp(LLAMA.read_labels(reply, [5, 9])).tolist() == pytest.approx([0.25, 0.5])


def test_the_label_that_llama_server_chose_is_told_of_however_improbable_it_is() -> None:
    reply = llama_said((9, 0.001), (1, 0.5), (2, 0.25))

    # Of another label it is known that it is no more probable.
    assert np.exp(LLAMA.read_labels(reply, [5, 9])).tolist() == pytest.approx([0.001, 0.001])


def test_a_label_that_llama_server_does_not_tell_of_gets_the_most_that_it_can_have() -> None:
    # Not more than the least probable token told, nor more than is left.
    assert np.exp(LLAMA.read_labels(llama_said((9, 0.5), (9, 0.5), (1, 0.2)), [9, 7])).tolist() == pytest.approx(
        [0.5, 0.2]
    )
    assert np.exp(LLAMA.read_labels(llama_said((9, 0.9), (9, 0.9), (1, 0.09)), [9, 7])).tolist() == pytest.approx(
        [0.9, 0.01]
    )


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"text": "a"}, {"text": "b"}]}',
        b'{"choices": [{"text": "x"}]}',
        b'{"choices": [{"text": "\xff"}]}',
        b'{"choices": [{"text": "x", "logprobs": "many"}]}',
        b'{"choices": [{"text": "x", "logprobs": {"top_logprobs": []}}]}',
        b'{"choices": [{"text": "x", "logprobs": {"content": []}}]}',
        vllm_said(**{"token_id:5": -1.0}),
        vllm_said(**{"token_id:5": -0.1, "token_id:9": -0.1}),
        vllm_said(**{"token_id:5": 3.0, "token_id:9": -0.1}),
        b'{"choices": [{"logprobs": {"top_logprobs": [{"token_id:5": NaN, "token_id:9": -1}]}}]}',
        b'{"choices": [{"logprobs": {"top_logprobs": [{"token_id:5": -1e999, "token_id:9": -1}]}}]}',
        llama_said((5, 0.9), (9, 0.8)),
        llama_said((1, 0.9), (9, 0.05)),
        b'{"choices": [{"logprobs": {"content": [{"id": 5, "logprob": -1, "top_logprobs": [{"id": 5}]}]}}]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", [VLLM, LLAMA], ids=["vllm", "llama"])
def test_an_answer_that_is_none_is_refused(dialect: VllmDialect | LlamaDialect, reply: bytes) -> None:
    with pytest.raises(UntrustedError):
        dialect.read_labels(reply, [5, 9])


@pytest.mark.parametrize(
    "reply", [b'{"choices": [{"text": 3}]}', b'{"choices": 3}', b"text", b'{"choices": [{"text": "\xff"}]}']
)
def test_a_text_that_is_none_is_refused(reply: bytes) -> None:
    with pytest.raises(UntrustedError):
        VLLM.read_text(reply)


def test_an_answer_of_another_model_than_was_asked_is_refused() -> None:
    assert VLLM.read_text(b'{"model": "tiny", "choices": [{"text": "x"}]}') == "x"
    with pytest.raises(UntrustedError, match="is of `huge`, `tiny` was asked"):
        VLLM.read_text(b'{"model": "huge", "choices": [{"text": "x"}]}')


@pytest.mark.parametrize(
    "token", [b'"id": 1, "piece": [300]', b'"id": 1, "piece": [-1]', b'"id": 1e30', b'"id": -1', b'"id": 4294967296']
)
def test_tokens_that_are_none_and_pieces_of_what_are_no_bytes_are_refused(token: bytes) -> None:
    with pytest.raises(UntrustedError, match="the server's tokens"):
        LLAMA.tokeniser(lambda _: b'{"tokens": [{' + token + b"}]}").tokens(b"a")


def test_a_piece_that_is_no_text_is_told_as_bytes() -> None:
    tokeniser = LLAMA.tokeniser(lambda _: b'{"tokens": [{"id": 1, "piece": [255, 0]}]}')

    assert tokeniser.tokens(b"a") == [1]
    assert tokeniser.piece(1) == b"\xff\x00"


def test_an_added_token_without_a_number_is_refused() -> None:
    with pytest.raises(UntrustedError, match="the server's tokeniser's description"):
        VllmDialect(MODEL, b'{"added_tokens_decoder": {"seven": "<|im_end|>"}}')


def test_tokens_without_their_spellings_are_refused() -> None:
    with pytest.raises(UntrustedError, match="2 tokens written in 1 ways"):
        VLLM.tokeniser(lambda _: b'{"tokens": [1, 2], "token_strs": ["a"]}')
