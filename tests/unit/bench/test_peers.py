"""A peer is asked what its plainest user would ask, however it has been made faster."""

from contextlib import closing
from pathlib import Path

from llama_cpp import Llama

from bench.peers import HighLevel
from tests.fakes.tiny_models import RELEASE, tiny_decoder

EVENTS = ["sshd: Failed password for root from 192.0.2.7", "kernel: eth0: link up", ""]


def test_a_prefix_that_is_tokenised_once_gets_the_answers_that_the_whole_text_gets(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "model.gguf", RELEASE)
    before, after = "Read the event. Answer with a label.\nEvent: ", "\nLabel:"
    with closing(Llama(str(model), n_ctx=1024, verbose=False)) as plain:
        wanted = [
            plain.create_completion(f"{before}{event}{after}", temperature=0.0, max_tokens=5)["choices"][0]["text"]
            for event in EVENTS
        ]
    with closing(HighLevel(model, before, after)) as peer:
        assert peer.complete(EVENTS, max_tokens=5) == wanted
