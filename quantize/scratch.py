"""A small Llama from scratch: vocabulary, second opinions, training, and a checkpoint of `transformers`."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from models.contracts.release import Prompt
from models.contracts.task import Task
from quantize.examples import Examples
from quantize.expand import example_of, expand
from quantize.named_release import named_release
from quantize.network import Llama, Shape
from quantize.recipe import TrainFromScratch
from quantize.teacher import opinions_of, second_opinions
from quantize.train import Plan, train
from quantize.vocabulary import END_OF_TEXT, train_vocabulary

PROMPT = Prompt(kind="plain", before="Event: ", after="\nLabel:")
_VOCABULARY_SEED = 73
_STATE = "state.pt"
_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def train_from_scratch(
    found: Examples, task: Task, training: TrainFromScratch, *, seed: int, out: Path, tick: Callable[[int, int], None]
) -> None:
    """Train on event types and write the checkpoint into `out`; an interrupted run goes on after its last epoch."""
    plan = Plan(epochs=training.epochs, warm_epochs=training.warm_epochs, taught_share=training.taught_share, seed=seed)
    if training.teacher:
        taught = opinions_of(*named_release(training.teacher), found.types, task, tick)
    else:
        taught = second_opinions(found.types, task)
    texts = [example_of(line, task).body for line in expand(found.types, copies=2, seed=_VOCABULARY_SEED)]
    tokenizer = train_vocabulary(texts, task, PROMPT)
    network = train(
        found.types,
        task,
        PROMPT,
        tokenizer,
        Shape(),
        taught=taught,
        plan=plan,
        report=lambda progress: tick(progress.step, progress.steps),
        state=out / _STATE,
    )
    save_checkpoint(network, tokenizer, out)
    (out / _STATE).unlink()


def save_checkpoint(network: Llama, tokenizer: Tokenizer, out: Path) -> None:
    """Write `config.json`, `model.safetensors` and the tokeniser's files."""
    shape = network.shape
    # It marks ends only. The one that is handed in stays without it: no text that is trained on can spell it.
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    marks = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, **marks}
    (out / "tokenizer_config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    tokenizer.save(str(out / "tokenizer.json"))
    tensors = {_name(key): _by_halves(key, weight, shape) for key, weight in network.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def _name(key: str) -> str:
    """Return what `transformers` calls a weight that we call as llama.cpp does."""
    if key == "token_embd.weight":
        return "model.embed_tokens.weight"
    if key == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = key.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{kind}"


def _by_halves(key: str, weight: Tensor, shape: Shape) -> Tensor:
    """Return a weight as `transformers` has it: the two of a rotary pair half a head apart, and not neighbours."""
    if ".attn_q." not in key and ".attn_k." not in key:
        return weight.detach().contiguous()
    pairs = weight.detach().view(shape.heads, shape.head_width // 2, 2, shape.width)
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()
