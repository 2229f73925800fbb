"""The JAX decoder against the torch models of transformers: Llama, Mistral and Qwen2."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.language import init_lora, load_model, merge_lora
from rlli_jax.language.llama import tiny_llama
from rlli_jax.language.llama.gguf import _halves
from rlli_jax.language.words import word_tokenizer

ACTIONS = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
PROMPTS = [
    "You see a wall 3 steps forward. Action:",
    "You see a red ball 2 steps left and 1 step forward , You see a wall. Action:",
    "drop Action:",
]
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "attention_dropout": 0.0,
}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 500.0,
}  # fmt: skip
KINDS = {
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "rope_theta": 1e5}),
    "llama 3.1, biases": ("Llama", {"rope_parameters": LLAMA3, "attention_bias": True,
                                    "mlp_bias": True}),
    "mistral": ("Mistral", {"head_dim": 8, "sliding_window": 8}),
    "qwen2": ("Qwen2", {"rope_theta": 1e6, "tie_word_embeddings": False}),
}  # fmt: skip


def byte_tokenizer():
    """Byte-level BPE, as SmolLM2's: words and the words with their space are single tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(" ".join([*PROMPTS, *ACTIONS]).replace(":", " :").split())
    pieces = dict.fromkeys(["<end>", *"".join(words), "Ġ", "tu", *words, *(f"Ġ{w}" for w in words)])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "u")], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", model_max_length=128
    )


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A folder and the torch model of each kind."""
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    import transformers

    torch.set_num_threads(1)  # the models are tiny; waiting threads only cost
    torch.manual_seed(0)
    made = {}
    for kind, (name, options) in KINDS.items():
        config = getattr(transformers, f"{name}Config")(
            **SIZES | options, vocab_size=len(tokenizer) + 8, bos_token_id=None, eos_token_id=0
        )
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # norms of one and biases of zero hide mistakes
                parameter.normal_(0.3 if parameter.ndim == 1 else 0.0, 0.3)
        folder = tmp_path_factory.mktemp("model")
        sharded = {"max_shard_size": "20KB"} if kind == "mistral" else {}
        model.save_pretrained(folder, **sharded)
        tokenizer.save_pretrained(folder)
        made[kind] = (folder, model)
    return made


def torch_scores(model, prompts, rows):
    """One call per prompt and candidate: no batch, no padding, no sharing."""
    import torch

    table = np.zeros((len(prompts), len(rows)))
    for c, prompt in enumerate(prompts):
        for k, row in enumerate(rows):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *row]])).logits[0, len(prompt) - 1 : -1]
            table[c, k] = logits.log_softmax(-1)[range(len(row)), row].sum().item()
    return table


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_one_torch_call_per_candidate(kind, folders):
    folder, peer = folders[kind]
    model = load_model(folder)
    prompts, candidates = model.prompts(PROMPTS), model.candidates(ACTIONS)
    expected = torch_scores(
        peer,
        [model.tokenizer(prompt)["input_ids"] for prompt in PROMPTS],
        [model.tokenizer(f" {action}")["input_ids"] for action in ACTIONS],  # with its space
    )
    scores = model.score(model.params, prompts, candidates)
    np.testing.assert_allclose(scores.candidates, expected, atol=1e-4)
    assert np.ptp(expected) > 1


def test_the_hidden_state_is_that_of_the_prompts_last_token(folders):
    import torch

    folder, peer = folders["llama, tied"]
    model = load_model(folder)
    prompts = model.prompts(PROMPTS)
    hidden = model.score(model.params, prompts, model.candidates(ACTIONS)).hidden
    assert hidden.shape == (3, model.width)
    for row, mask, found in zip(*jax.device_get((*prompts, hidden)), strict=True):
        with torch.no_grad():
            out = peer(torch.tensor([row[mask].tolist()]), output_hidden_states=True)
        np.testing.assert_allclose(found, out.hidden_states[-1][0, -1], atol=1e-4)


def test_gradients_equal_those_of_torch(folders):
    import torch

    folder, peer = folders["qwen2"]
    model = load_model(folder)
    prompts, candidates = model.prompts(PROMPTS[:1]), model.candidates(["turn left"])
    grads = jax.jit(jax.grad(lambda p: model.score(p, prompts, candidates).candidates.sum()))(
        model.params
    )
    row = model.tokenizer(" turn left")["input_ids"]
    prompt = prompts.ids[0].tolist()
    peer.zero_grad()
    logits = peer(torch.tensor([[*prompt, *row]])).logits[0, len(prompt) - 1 : -1]
    logits.log_softmax(-1)[range(len(row)), row].sum().backward()
    attention = grads["layers"]["self_attn"]
    for i in (0, 2):
        theirs = peer.model.layers[i].self_attn
        for name in ("q_proj", "k_proj"):
            expected = getattr(theirs, name)
            np.testing.assert_allclose(
                attention[name]["kernel"][i].T, expected.weight.grad, atol=1e-4
            )
            np.testing.assert_allclose(attention[name]["bias"][i], expected.bias.grad, atol=1e-4)
    np.testing.assert_allclose(
        grads["embed_tokens"]["embedding"], peer.model.embed_tokens.weight.grad, atol=1e-4
    )


def test_candidates_share_their_prefixes_and_have_their_space(folders, tokenizer):
    tree = load_model(folders["mistral"][0]).candidates(ACTIONS)
    assert tree.tokens.shape == (4,)  # the prompt's end, " turn", " go", " pick"
    vocabulary = tokenizer.get_vocab()
    assert tree.tokens[1:].tolist() == [vocabulary[w] for w in ("Ġturn", "Ġgo", "Ġpick")]


def test_a_tokenizer_that_writes_the_space_itself_is_given_none():
    model = tiny_llama(jax.random.key(0), [*PROMPTS, *ACTIONS], width=8, num_heads=2)
    vocabulary = model.tokenizer.get_vocab()
    assert model.candidates(["turn left"]).edge_token.tolist() == [
        vocabulary["turn"], vocabulary["left"],
    ]  # fmt: skip


def test_a_prompt_begins_as_the_tokenizer_begins_it(tokenizer, folders, tmp_path):
    from tokenizers import processors

    path = shutil.copytree(folders["llama, tied"][0], tmp_path / "model")
    begun = byte_tokenizer()
    begun.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<end> $A <end>", None, [("<end>", 0)]
    )
    begun.bos_token = "<end>"
    begun.save_pretrained(path)
    ids = load_model(path).prompts(["drop"]).ids[0].tolist()
    assert ids == [0, *tokenizer("drop")["input_ids"]]


@pytest.mark.parametrize("kind", ["llama 3.1, biases", "mistral", "qwen2"])
def test_a_saved_model_comes_back(kind, folders, tmp_path):
    model = load_model(folders[kind][0])
    model.save(tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_bfloat16_is_near(folders):
    folder, _ = folders["llama, tied"]
    exact, half = load_model(folder), load_model(folder, compute_dtype="bfloat16")
    asked = exact.prompts(PROMPTS), exact.candidates(ACTIONS)
    found = half.score(half.params, *asked).candidates
    expected = exact.score(exact.params, *asked).candidates
    assert found.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(found - expected).max()) < 0.5


def test_lora_adapts_queries_and_values_of_every_layer(folders):
    model = load_model(folders["mistral"][0])
    lora = init_lora(jax.random.key(0), model.params, rank=2)
    assert set(lora["layers"]["self_attn"]) == {"q_proj", "v_proj"}
    assert lora["layers"]["self_attn"]["v_proj"]["a"].shape == (3, 24, 2)
    lora = jax.tree.map(lambda x: x + 0.1, lora)
    merged = merge_lora(model.params, lora, alpha=4.0)
    before, update, after = (
        x["layers"]["self_attn"]["q_proj"] for x in (model.params, lora, merged)
    )
    expected = before["kernel"][1] + 2 * update["a"][1] @ update["b"][1]
    np.testing.assert_allclose(after["kernel"][1], expected, atol=1e-6)


def test_pairs_of_a_gguf_file_become_halves():
    """llama.cpp's order of one head of 4: rows 0, 2, 1, 3 of Hugging Face's."""
    stored = np.array([0, 2, 1, 3, 4, 6, 5, 7])
    assert _halves(stored[:, None], 4)[:, 0].tolist() == list(range(8))
    assert _halves(stored, 4).tolist() == list(range(8))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, folders):
    """The tied Llama as llama.cpp's converter writes it."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is absent")
    folder, peer = folders["llama, tied"]
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_context_length(128)
    writer.add_embedding_length(24)
    writer.add_feed_forward_length(40)
    writer.add_head_count(6)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e5)
    parts = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocabulary = sorted(parts["vocab"], key=parts["vocab"].get)
    vocabulary += ["<|endoftext|>", *(f"<{i}>" for i in range(7))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * len(vocabulary))
    writer.add_token_merges([" ".join(pair) for pair in parts["merges"]])
    writer.add_eos_token_id(0)
    from rlli_jax.language.llama.gguf import _LAYER, _OUTSIDE

    theirs = {name: x.detach().numpy() for name, x in peer.named_parameters()}
    for short, long in _OUTSIDE.items():
        if f"{long}.weight" in theirs:
            writer.add_tensor(f"{short}.weight", theirs[f"{long}.weight"])
    for i in range(3):
        for short, long in _LAYER.items():
            x = theirs[f"model.layers.{i}.{long}.weight"]
            if short in ("attn_q", "attn_k"):  # as convert_hf_to_gguf.py permutes them
                x = x.reshape(-1, 2, 2, 24).swapaxes(1, 2).reshape(x.shape)
            writer.add_tensor(f"blk.{i}.{short}.weight", np.ascontiguousarray(x))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_gives_the_weights_of_the_folder(gguf_file, folders):
    ours, theirs = load_model(gguf_file), load_model(folders["llama, tied"][0])
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    eps = pytest.approx(theirs.config.rms_norm_eps)  # float32 in the file
    assert ours.config.rms_norm_eps == eps
    assert replace(ours.config, rms_norm_eps=1e-6) == replace(theirs.config, rms_norm_eps=1e-6)


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma3"}, "model of type 'gemma3'; known are t5, llama, mistral, qwen2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is known"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions of the type 'yarn'"),
        ({"hidden_size": "absent"}, "has no hidden_size"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "a window in some layers only"),
        ({"num_hidden_layers": 4}, r"no tensor model\.layers\.3\."),
        ({"num_key_value_heads": 4}, "6 heads do not share 4 keys evenly"),
        ({"intermediate_size": 41}, r"has shape \(24, 40\), but its configuration asks for"),
        ({"rms_norm_eps": "tiny"}, 'rms_norm_eps is "tiny"; it must be a number'),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(folders, tmp_path, changes, message):
    path = shutil.copytree(folders["llama, tied"][0], tmp_path / "model")
    edit(path, **changes)
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_a_folder_without_weights_is_one_sentence(folders, tmp_path):
    path = shutil.copytree(folders["mistral"][0], tmp_path / "model")
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"has no weights \\({shard.name} is missing\\)"):
        load_model(path)


def test_a_tokenizer_without_the_words_is_one_sentence(folders, tmp_path):
    path = shutil.copytree(folders["llama, tied"][0], tmp_path / "model")
    (path / "tokenizer.json").unlink()
    word_tokenizer(["Action : turn left"]).save_pretrained(path)
    model = load_model(path)
    with pytest.raises(InputError, match=r"Candidate 1 \('jump'\) has a word that the tokenizer"):
        model.candidates(["turn left", "jump"])


def test_bytes_that_the_tokenizer_drops_leave_no_tokens(folders):
    model = load_model(folders["llama, tied"][0])
    with pytest.raises(InputError, match=r"Candidate 0 \(' '\) has no tokens"):
        model.candidates([" ", "drop"])


def test_files_that_are_no_gguf_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"Model file .*none\.gguf does not exist"):
        load_model(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    with pytest.raises(InputError, match=r"bad\.gguf"):
        load_model(tmp_path / "bad.gguf")


def test_a_prompt_that_is_too_long_is_one_sentence(folders):
    model = load_model(folders["mistral"][0])
    with pytest.raises(InputError, match="has 129 tokens but the model takes at most 128"):
        model.prompts(["drop" + " drop" * 128])
