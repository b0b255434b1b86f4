"""Real vocabularies and real chat templates, as they lie in llama.cpp's source."""

from pathlib import Path

import pytest

from models.contracts.errors import UntrustedError
from models.contracts.release import Prompt
from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.fields import transcript_pieces
from models.labels import LabelTree
from models.llama import Model
from models.prompt import frame
from models.transcript import FieldProgram
from models.vocabulary import Vocabulary

DECODERS = [
    "aquila", "baichuan", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "gpt-neox",
    "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
]  # fmt: skip
TASK_FILE = Path(__file__).parents[2] / "models" / "tasks" / "soc-triage.toml"
TASK = decode_toml(TASK_FILE.read_text(), Task, str(TASK_FILE))
EVENT = "sshd: Failed password for müller from 192.0.2.7 port 51122; cat '/etc/passwd' C:\\Windows\\a.exe"
MARKS = [
    "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<s>", "</s>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<unk>",
    "[PAD151646]", "<table>", "<0x0A>", "<|fim_prefix|>", "<bos>", "[multimodal]", "<pad>", "<mask>", "<|assistant|>",
]  # fmt: skip


@pytest.fixture(scope="module", params=DECODERS)
def model(request: pytest.FixtureRequest, llama_source: Path) -> Model:
    path = llama_source / "vendor" / "llama.cpp" / "models" / f"ggml-vocab-{request.param}.gguf"
    return Model(path, vocabulary_only=True)


@pytest.fixture
def vocabulary(model: Model) -> Vocabulary:
    return model.vocabulary


def spelled(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return b"".join(vocabulary.pieces[token] for token in tokens).decode("utf-8", "replace")


@pytest.mark.parametrize("text", [EVENT, f" {EVENT}", "", " ", "  a", "\n", "a\x00b", "日本語 ログ", "\t\t", "é" * 50])
def test_an_event_is_encoded_byte_for_byte(vocabulary: Vocabulary, text: str) -> None:
    if text == "日本語 ログ" and spelled(vocabulary, vocabulary.encode("日")) != "日":
        pytest.skip("this vocabulary has no bytes to fall back on")
    assert spelled(vocabulary, vocabulary.encode(text)) == text


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_in_an_event_stays_text(vocabulary: Vocabulary, mark: str) -> None:
    for text in (mark, f"a{mark}b", f" {mark * 3} "):
        # A mark that became a token of its own has no bytes, and would be missing here.
        assert spelled(vocabulary, vocabulary.encode(text)) == text


def test_cutting_before_the_space_gives_the_tokens_of_the_whole(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("Event:") + vocabulary.encode(f" {EVENT}") == vocabulary.encode(f"Event: {EVENT}")


def test_the_labels_can_be_expressed(vocabulary: Vocabulary) -> None:
    spellings = [[vocabulary.encode(lead + name) for lead in ("", " ")] for name in TASK.label_names]

    tree = LabelTree(TASK.label_names, spellings)

    assert tree.questions[0].path == ()
    assert len(tree.questions) <= 4


def test_labels_that_begin_alike_are_told_apart_or_refused_with_the_reason(vocabulary: Vocabulary) -> None:
    names = ["high", "higher"]
    first, second = ([vocabulary.encode(f" {name}")] for name in names)
    if second[0][: len(first[0])] == first[0]:
        with pytest.raises(UntrustedError, match="`high` is how label `higher` begins, token for token; rename one"):
            LabelTree(names, [first, second])
    else:
        assert LabelTree(names, [first, second]).questions


def test_what_a_model_is_trained_to_write_about_an_event_it_may_write(vocabulary: Vocabulary) -> None:
    program = FieldProgram(TASK, vocabulary.encode, vocabulary.token_of_piece, vocabulary.pieces)
    fields = {
        "source": ["192.0.2.7"],
        "technique": [TASK.fields[2].choices[0]],
        "observable": ["müller", "/etc/passwd", "C:\\Windows\\a.exe"],
    }
    transcript = program.begin(EVENT)
    for piece in transcript_pieces(TASK, "critical", fields)[1:]:
        for token in vocabulary.encode(piece):
            assert token in transcript.allowed(), piece
            transcript.advance(token)

    assert transcript.done
    assert transcript.values() == ({name: tuple(values) for name, values in fields.items()}, 0)


def test_a_model_that_brings_a_chat_template_is_framed_by_it(model: Model) -> None:
    if not model.chat_template:
        with pytest.raises(UntrustedError, match="no chat template"):
            frame(Prompt(kind="chat"), TASK, model.vocabulary, None)
        return

    framed = frame(Prompt(kind="chat"), TASK, model.vocabulary, model.chat_template)

    assert spelled(model.vocabulary, list(framed.before)).strip().endswith("Event:")
    assert framed.lead == " "
    # The turn changes by control tokens, which have no bytes.
    assert not all(model.vocabulary.pieces[token] for token in (*framed.before, *framed.after))
