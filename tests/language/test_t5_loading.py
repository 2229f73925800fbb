"""Hugging Face folders in and out, and what is said when one of them is wrong."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.language import load_model, t5
from rlli_jax.language.words import word_tokenizer

TEXTS = ["go to the red ball", "turn left", "turn right", "You see a wall 3 steps forward"]


@pytest.fixture(scope="module")
def model():
    return t5.tiny_t5(jax.random.key(0), TEXTS, d_model=16, num_layers=1)


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path)
    return tmp_path


def assert_same_weights(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def test_a_saved_model_comes_back(model, folder):
    again = load_model(folder)
    assert again.config == model.config
    assert_same_weights(again.params, model.params)
    for text in TEXTS:
        assert again.prompts([text]).ids.tolist() == model.prompts([text]).ids.tolist()


def test_transformers_reads_a_saved_model(model, folder):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    peer = T5ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    token = tokenizer("turn", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        logits = peer(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits
    scores = t5.score(
        model.config, model.params, model.prompts(TEXTS[:1]), model.candidates(["turn"])
    )
    expected = logits[0, 0].log_softmax(-1)[token].item()
    assert float(scores.candidates[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_loading_and_scoring_need_no_torch(model, folder):
    program = f"""
import sys
sys.modules["torch"] = None  # any import of torch now fails
from rlli_jax.language import load_model, t5
model = load_model({str(folder)!r})
prompts, candidates = model.prompts({TEXTS[:1]}), model.candidates({TEXTS[1:3]})
scores = t5.score(model.config, model.params, prompts, candidates)
print(scores.candidates.tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = t5.score(
        model.config, model.params, model.prompts(TEXTS[:1]), model.candidates(TEXTS[1:3])
    )
    np.testing.assert_allclose(
        json.loads(done.stdout.splitlines()[-1]), scores.candidates, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["shards", "bfloat16"])
def test_folders_that_torch_wrote(kind, folder, tmp_path_factory):
    torch = pytest.importorskip("torch", reason="torch, the reference, is absent")
    from transformers import T5ForConditionalGeneration

    peer = T5ForConditionalGeneration.from_pretrained(folder)
    peer = peer.to(torch.bfloat16) if kind == "bfloat16" else peer
    target = tmp_path_factory.mktemp(kind)
    peer.save_pretrained(target, max_shard_size="4KB" if kind == "shards" else "5GB")
    assert len(list(target.glob("*.safetensors"))) > 1 or kind == "bfloat16"
    load_model(folder).tokenizer.save_pretrained(target)
    params = load_model(target).params
    np.testing.assert_array_equal(
        params["lm_head"]["kernel"].T, peer.lm_head.weight.detach().float()
    )
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("changes", "scaled"),
    [
        # t5-small, flan-t5-small as published, and flan-t5-small saved again by transformers 5
        ({"scale_decoder_outputs": "absent", "tie_word_embeddings": "absent"}, True),
        ({"scale_decoder_outputs": "absent", "tie_word_embeddings": False}, False),
        ({"scale_decoder_outputs": False, "tie_word_embeddings": True}, False),
    ],
)
def test_old_and_new_configs_agree_on_the_scaling_of_the_head(folder, changes, scaled):
    edit_config(folder, **changes)
    config = load_model(folder).config
    assert config.scale_decoder_outputs is scaled
    assert config.tie_head is False  # the weights have a head of their own


def test_a_sentencepiece_like_tokenizer_gives_no_end_of_sequence(folder):
    """The kind that flan-t5 has: it adds </s> to what it reads unless told not to."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁turn", "▁left", "▁right", "▁", "t", "u", "r", "n"]
    tokenizer = Tokenizer(models.Unigram([(p, -1.0) for p in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    model = load_model(folder)
    assert model.tokenizer("turn left")["input_ids"] == [3, 4, 1]
    assert model.prompts(["turn left"]).ids.tolist() == [[3, 4]]
    candidates = model.candidates(["turn left", "turn right"])
    assert candidates.tokens.tolist() == [0, 3]
    assert candidates.edge_token.tolist() == [3, 4, 5]


def test_unknown_words_are_unknown(model):
    assert model.prompts(["turn sideways"]).ids[0, 1] == model.tokenizer.unk_token_id


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"Model folder .*nowhere does not exist"):
        load_model(tmp_path / "nowhere")


def test_name_that_cannot_be_fetched(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match="'google/flan-t5-small' is no folder here and could not"):
        load_model("google/flan-t5-small")
    with pytest.raises(InputError, match="'flan t5' is no folder here and could not be fetched"):
        load_model("flan t5")


def test_a_name_is_fetched_without_torch_weights(folder, monkeypatch):
    import huggingface_hub

    asked = {}

    def fetch(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    model = load_model("google/flan-t5-small")
    assert model.name == asked["name"] == "google/flan-t5-small"
    assert not any(pattern.endswith("bin") for pattern in asked["patterns"])


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(folder)


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"has no weights \(model\.safetensors is missing\)"):
        load_model(folder)


def test_folder_without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer that transformers can read"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "bert"},
            "describes a model of type 'bert'; known are t5, llama, mistral",
        ),
        ({"model_type": "absent"}, "describes a model of type None; known are"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj is 'gated-silu'"),
        ({"d_model": "wide"}, 'd_model is "wide"; it must be a whole number'),
        ({"layer_norm_epsilon": "small"}, 'layer_norm_epsilon is "small"; it must be a number'),
        ({"num_layers": 5}, "no tensor encoder.block.1"),
        ({"d_ff": 99}, r"has shape \(32, 16\), but its configuration asks for \(99, 16\)"),
    ],
)
def test_config_that_is_no_fitting_t5(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        load_model(folder)


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_damaged_weights(folder, damage):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff" * len(data))
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load_model(folder)


def test_damaged_index_of_shards(folder):
    (folder / "model.safetensors.index.json").write_text('{"weights": 1}')
    with pytest.raises(InputError, match=r"index\.json is damaged"):
        load_model(folder)


def test_tokenizer_of_another_model(folder):
    word_tokenizer([f"word{i}" for i in range(50)]).save_pretrained(folder)
    with pytest.raises(InputError, match="has 53 tokens but the model's vocab_size is"):
        load_model(folder)


def test_candidates_that_cannot_be_scored(model):
    with pytest.raises(InputError, match=r"Candidate 1 \(' '\) has no tokens"):
        model.candidates(["turn left", " "])
    with pytest.raises(InputError, match=r"'jump'\) and 2 \('fly'\) have the same tokens"):
        model.candidates(["turn left", "jump", "fly"])
    with pytest.raises(InputError, match="There are no candidates"):
        model.candidates([])


def test_prompts_that_cannot_be_read(model):
    with pytest.raises(InputError, match=r"Prompt 1 .* has 513 tokens but the model takes at most"):
        model.prompts(["turn", "turn " * 513])
    assert model.prompts(["turn " * 512]).ids.shape == (1, 512)
    with pytest.raises(InputError, match=r"Prompt 0 \(''\) has no tokens"):
        model.prompts([""])
    with pytest.raises(InputError, match="There are no prompts"):
        model.prompts([])
