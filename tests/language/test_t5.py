"""The JAX T5 against the torch T5 of transformers, and what the scores promise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlli_jax.errors import InputError
from rlli_jax.language import ValueHead, init_lora, load_model, merge_lora, t5
from rlli_jax.language.t5.model import relative_buckets
from rlli_jax.language.words import word_tokenizer

ACTIONS = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]
PROMPTS = [
    "You see a wall 3 steps forward",
    "You see a red ball 2 steps left and 1 step forward , You see a wall 1 step right",
    "drop",
]
TEXTS = [*ACTIONS, *PROMPTS]

SHAPES = {
    "relu, tied": ("relu", True),
    "relu, untied": ("relu", False),
    "gated, tied": ("gated-gelu", True),
    "gated, untied": ("gated-gelu", False),
}


def torch_model(feed_forward: str, tied: bool, seed: int = 0, **sizes):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    transformers = pytest.importorskip("transformers", reason="transformers is absent")
    shape = {
        "vocab_size": 50,
        "d_model": 24,
        "d_kv": 4,
        "d_ff": 40,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
    } | sizes
    torch.set_num_threads(1)  # the models are tiny; waiting threads only cost
    torch.manual_seed(seed)
    config = transformers.T5Config(
        **shape,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    if not tied:  # transformers 5 ties every new model
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all ones in a new model, which would hide a wrong scale
                parameter.uniform_(0.5, 1.5)
    return model


def folder_of(model, folder):
    model.save_pretrained(folder)
    word_tokenizer(TEXTS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny():
    return t5.tiny_t5(jax.random.key(0), TEXTS, d_model=16, num_layers=1)


def torch_token_scores(model, tokenizer, log: bool):
    """One call per prompt and candidate: no batch, no padding, no sharing."""
    import torch

    rows = np.zeros((len(PROMPTS), len(ACTIONS)))
    lengths = np.zeros(len(ACTIONS))
    for c, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        for k, action in enumerate(ACTIONS):
            tokens = tokenizer(action, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, *tokens[:-1]]]))
            values = logits.logits[0].log_softmax(-1) if log else logits.logits[0]
            rows[c, k] = values[range(len(tokens)), tokens].sum().item()
            lengths[k] = len(tokens)
    return rows, lengths


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_torch(shape, tmp_path):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    peer = torch_model(*SHAPES[shape])
    model = load_model(folder_of(peer, tmp_path))
    rng = np.random.default_rng(0)
    ids, tokens = rng.integers(3, 50, (4, 20)), rng.integers(3, 50, 15)
    mask = np.arange(20) < np.array([[20], [13], [1], [7]])
    with torch.no_grad():
        expected = peer(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            decoder_input_ids=torch.tensor(np.tile(tokens, (4, 1))),
            output_hidden_states=True,
        )
    # A sequence is a tree in which every node sees all earlier ones.
    sequence = (jnp.asarray(tokens), jnp.arange(15), jnp.tri(15, dtype=bool))
    hidden, logits = jax.jit(t5.T5(model.config).apply)(
        {"params": model.params}, jnp.asarray(ids), jnp.asarray(mask), *sequence
    )
    np.testing.assert_allclose(hidden, expected.decoder_hidden_states[-1], atol=1e-5, rtol=1e-5)
    # Logits reach 13, so that the last digits, which differ between CPUs, are 1e-6 each.
    np.testing.assert_allclose(logits, expected.logits, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (8, 20), (16, 64), (32, 256)])
def test_relative_position_buckets_equal_those_of_torch(buckets, reach, bidirectional):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(offsets, bidirectional, buckets, reach)
    config = t5.T5Config(
        relative_attention_num_buckets=buckets, relative_attention_max_distance=reach
    )
    actual = relative_buckets(
        jnp.zeros(1, jnp.int32),
        jnp.arange(-300, 301),
        bidirectional=bidirectional,
        config=config,
    )
    np.testing.assert_array_equal(actual[0], expected)


@pytest.mark.parametrize("shape", ["relu, tied", "gated, untied"])
def test_scores_equal_one_torch_call_per_candidate(shape, tmp_path):
    peer = torch_model(*SHAPES[shape])
    model = load_model(folder_of(peer, tmp_path))
    prompts, candidates = model.prompts(PROMPTS), model.candidates(ACTIONS)
    logs, lengths = torch_token_scores(peer, model.tokenizer, log=True)
    raw, _ = torch_token_scores(peer, model.tokenizer, log=False)
    scores = t5.score(model.config, model.params, prompts, candidates)
    np.testing.assert_allclose(scores.candidates, logs, atol=1e-5, rtol=1e-5)
    scores = t5.score(model.config, model.params, prompts, candidates, "logit")
    # Lamorel before August 2025: each token of padding counts 1.0.
    np.testing.assert_allclose(
        scores.candidates, raw + lengths.max() - lengths, atol=1e-5, rtol=1e-5
    )


def test_gradients_equal_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    peer = torch_model("gated-gelu", True)
    model = load_model(folder_of(peer, tmp_path))
    prompts, candidates = model.prompts(PROMPTS[1:2]), model.candidates(["turn left"])
    tokens = model.tokenizer("turn left", add_special_tokens=False)["input_ids"]
    out = peer(
        input_ids=torch.tensor(np.asarray(prompts.ids)).long(),
        decoder_input_ids=torch.tensor([[0, *tokens[:-1]]]),
    )
    out.logits[0].log_softmax(-1)[range(len(tokens)), tokens].sum().backward()
    grads = jax.jit(
        jax.grad(lambda p: t5.score(model.config, p, prompts, candidates).candidates.sum())
    )(model.params)
    np.testing.assert_allclose(grads["shared"]["embedding"], peer.shared.weight.grad, atol=1e-5)
    for stack in ("encoder", "decoder"):
        attention = grads[stack]["block_0"]["layer_0"]["SelfAttention"]
        expected = getattr(peer, stack).block[0].layer[0].SelfAttention
        np.testing.assert_allclose(attention["q"]["kernel"].T, expected.q.weight.grad, atol=1e-5)
        np.testing.assert_allclose(
            attention["relative_attention_bias"]["embedding"],
            expected.relative_attention_bias.weight.grad,
            atol=1e-5,
        )


@pytest.mark.slow
def test_scores_at_the_size_of_flan_t5_small_equal_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    peer = torch_model(
        "gated-gelu",
        False,
        vocab_size=32_128,
        d_model=512,
        d_kv=64,
        d_ff=1_024,
        num_layers=8,
        num_decoder_layers=8,
        num_heads=6,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
    )
    with torch.no_grad():
        peer.lm_head.weight *= 512**-0.5  # of the size that training leaves, not that of the draw
    model = load_model(folder_of(peer, tmp_path))
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 76_961_152
    scores = t5.score(
        model.config, model.params, model.prompts(PROMPTS), model.candidates(ACTIONS)
    ).candidates
    expected, _ = torch_token_scores(peer, model.tokenizer, log=True)
    # Largest difference measured: 3.8e-6 for scores around -18 (CPU, jax 0.10.2, torch 2.13.0).
    print(f"largest difference: {np.abs(scores - expected).max():.2e}, scores {scores.mean():.1f}")
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-6)


def test_a_prompt_scores_the_same_in_any_batch(tiny):
    candidates = tiny.candidates(ACTIONS)
    together = t5.score(tiny.config, tiny.params, tiny.prompts(PROMPTS), candidates)
    for i, prompt in enumerate(PROMPTS[:2]):
        alone = t5.score(tiny.config, tiny.params, tiny.prompts([prompt]), candidates)
        np.testing.assert_allclose(alone.candidates[0], together.candidates[i], atol=1e-5)
        np.testing.assert_allclose(alone.hidden[0], together.hidden[i], atol=1e-5)


def test_a_candidate_scores_the_same_among_any_others(tiny):
    prompts = tiny.prompts(PROMPTS)
    together = t5.score(tiny.config, tiny.params, prompts, tiny.candidates(ACTIONS))
    for k, action in [(1, "turn right"), (4, "drop")]:
        alone = t5.score(tiny.config, tiny.params, prompts, tiny.candidates([action]))
        np.testing.assert_allclose(alone.candidates[:, 0], together.candidates[:, k], atol=1e-5)
        np.testing.assert_allclose(alone.hidden, together.hidden, atol=1e-5)


def test_one_token_candidates_have_probabilities_that_sum_to_one(tiny):
    vocabulary = [w for w in tiny.tokenizer.get_vocab() if not w.startswith("<")]
    prompts = tiny.prompts(PROMPTS)
    scores = t5.score(tiny.config, tiny.params, prompts, tiny.candidates(vocabulary)).candidates
    total = jnp.exp(scores).sum(axis=1)  # all of the vocabulary but <pad>, </s>, <unk>
    assert ((total < 1) & (total > 0.5)).all()
    longer = t5.score(tiny.config, tiny.params, prompts, tiny.candidates(["turn left", "turn"]))
    assert (longer.candidates[:, 0] < longer.candidates[:, 1]).all()


def test_candidates_share_their_prefixes(tiny):
    tree = tiny.candidates(ACTIONS)
    assert tree.tokens.shape == (4,)  # the root, turn, go, pick
    assert tree.edge_node.shape == (9,)  # 10 tokens, of which "turn" is shared
    assert tree.member.sum(axis=1).tolist() == [2, 2, 2, 2, 1, 1]
    assert tree.depth.tolist() == [0, 1, 1, 1]


def test_scores_are_traced_once_for_all_parameters(tiny):
    import chex

    prompts, candidates = tiny.prompts(PROMPTS), tiny.candidates(ACTIONS)
    compiled = jax.jit(
        chex.assert_max_traces(lambda p, c: t5.score(tiny.config, p, c, candidates), n=1)
    )
    for factor in (1.0, 0.5):
        compiled(jax.tree.map(lambda x, f=factor: x * f, tiny.params), prompts)
    assert prompts.take(jnp.array([2, 0])).ids.tolist() == prompts.ids[::-2].tolist()


def test_value_head():
    hidden = jax.random.normal(jax.random.key(0), (5, 16))
    head = ValueHead()
    params = head.init(jax.random.key(1), hidden)
    assert sum(x.size for x in jax.tree.leaves(params)) == 17 * 1_024 + 1_025 * 1_024 + 1_025
    x = np.asarray(hidden, np.float64)
    for i in range(3):
        layer = params["params"][f"Dense_{i}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = 1 / (1 + np.exp(-x)) if i < 2 else x
    np.testing.assert_allclose(head.apply(params, hidden), x[:, 0], atol=1e-5)


def test_lora_begins_as_the_loaded_model_and_has_the_size_that_peft_reports(tiny):
    lora = init_lora(jax.random.key(1), tiny.params, rank=4)
    merged = merge_lora(tiny.params, lora)
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(tiny.params), strict=True):
        np.testing.assert_array_equal(a, b)
    flan = t5.T5Config(
        d_ff=1_024,
        num_layers=8,
        num_decoder_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_head=False,
    )
    from rlli_jax.language.t5.model import init_params

    shapes = jax.eval_shape(lambda key: init_lora(key, init_params(key, flan)), jax.random.key(0))
    # peft on google/flan-t5-small with r = 16 on q and v: "trainable params: 688,128"
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 688_128


def test_lora_merges_as_the_paper_says(tiny):
    lora = init_lora(jax.random.key(1), tiny.params, rank=4)
    lora = jax.tree.map(lambda x: x + 0.1, lora)
    merged = merge_lora(tiny.params, lora, alpha=8.0)
    where = ("decoder", "block_0", "layer_1", "EncDecAttention")
    before, update, after = tiny.params, lora, merged
    for part in where:
        before, update, after = before[part], update[part], after[part]
    assert set(update) == {"q", "v"}
    for name in ("q", "v"):
        expected = before[name]["kernel"] + 2 * update[name]["a"] @ update[name]["b"]
        np.testing.assert_allclose(after[name]["kernel"], expected, atol=1e-6)
    np.testing.assert_array_equal(before["k"]["kernel"], after["k"]["kernel"])


def test_lora_on_a_layer_that_is_not_there(tiny):
    with pytest.raises(InputError, match="'query' is no layer of the model"):
        init_lora(jax.random.key(0), tiny.params, targets=("query",))


@pytest.mark.parametrize("how", ["full", "lora"])
def test_fine_tuning_learns_an_answer_for_each_prompt(tiny, how):
    prompts, candidates = tiny.prompts(PROMPTS), tiny.candidates(ACTIONS)
    answers = jnp.array([2, 0, 5])
    lora = init_lora(jax.random.key(2), tiny.params, rank=4)
    trained = tiny.params if how == "full" else lora

    def loss(trained):
        params = trained if how == "full" else merge_lora(tiny.params, trained)
        scores = t5.score(tiny.config, params, prompts, candidates).candidates
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, answers).mean()

    optimizer = optax.adam(1e-2)

    @jax.jit
    def fit(trained):
        def step(carry, _):
            trained, state = carry
            value, grads = jax.value_and_grad(loss)(trained)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(trained, updates), state), value

        return jax.lax.scan(step, (trained, optimizer.init(trained)), length=60)

    (trained, _), losses = fit(trained)
    assert losses[0] > 1
    assert losses[-1] < 0.1
