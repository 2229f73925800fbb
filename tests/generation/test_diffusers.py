"""Pipelines of random weights: a U-Net with DDIM, and a transformer with flow matching."""

import io
import json
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from rlli_jax.errors import InputError
from rlli_jax.generation import PictureStore, make_pictures, meters, plan_pictures
from rlli_jax.generation.base import key_of
from rlli_jax.generation.denoising import denoiser
from rlli_jax.generation.diffusers import DiffusersProvider
from rlli_jax.generation.grouping import Group, nearby
from rlli_jax.generation.pipelines import Pipeline, load
from rlli_jax.generation.sampling import Lora, Sampling, Weights
from rlli_jax.generation.tiny_pipelines import TINY, tiny_pipeline

SAMPLING = Sampling(4, guidance=5.0, seed=3, width=32, height=32)
CATS = Group("an animal", ("a cat", "a dog asleep in the rain"))


@pytest.fixture(scope="session", params=TINY)
def pipeline(request):
    return Pipeline(Weights(request.param, device="cpu"))


def pixels(image):
    return np.asarray(image)


def ordinary(name, prompt, scheduler=None):
    """The picture of diffusers' own pipeline, called as its documents have it."""
    import diffusers

    pipeline = tiny_pipeline(name)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        kind = getattr(diffusers, scheduler)
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    result = pipeline(
        prompt, num_inference_steps=4, guidance_scale=5.0, width=32, height=32,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    return pixels(result.images[0])


def made(provider, prompts):
    """The pixels of each prompt's picture."""
    return {
        prompt: pixels(Image.open(io.BytesIO(outcome.content)))
        for prompt, outcome in provider.make(prompts)
    }


def provider(name="tiny:stable-diffusion", sampling=SAMPLING, **changes):
    return DiffusersProvider("d", Weights(name, device="cpu"), sampling, **changes)


@pytest.mark.parametrize("name", TINY)
def test_without_shared_steps_a_picture_is_the_ordinary_pipelines(name):
    found = made(provider(name), CATS.members)
    for prompt in CATS.members:
        assert np.array_equal(found[prompt], ordinary(name, prompt))
    assert not np.array_equal(*found.values())


@pytest.mark.parametrize("name", TINY)
def test_with_all_steps_shared_a_group_has_the_picture_of_its_common_prompt(name):
    found = made(provider(name, shared_steps=4, groups=[CATS]), CATS.members)
    for prompt in CATS.members:
        assert np.array_equal(found[prompt], ordinary(name, CATS.prompt))


@pytest.mark.parametrize(
    "scheduler", [None, "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
                  "PNDMScheduler"]
)  # fmt: skip
def test_going_on_from_shared_steps_changes_nothing_if_the_prompt_is_the_same(pipeline, scheduler):
    """Bit for bit, also where a scheduler draws noise or remembers earlier steps."""
    if scheduler is not None and "3" in pipeline.name:
        pytest.skip("made for another kind of noise")
    sampling = SAMPLING._replace(scheduler=scheduler)
    alone = ordinary(pipeline.name, "a cat", scheduler)
    other = ordinary(pipeline.name, "a dog asleep in the rain", scheduler)
    for steps in (1, 3):
        shared, _ = pipeline.shared("a cat", sampling, steps)
        same = pixels(pipeline.call("a cat", sampling, shared=shared))
        assert np.array_equal(same, alone)
        mixed = pixels(pipeline.call("a dog asleep in the rain", sampling, shared=shared))
        assert not np.array_equal(mixed, other)
    assert np.array_equal(pixels(pipeline.call("a cat", sampling)), alone)  # nothing is left over


def test_shared_steps_are_run_once(pipeline):
    runs = []
    inside = next(denoiser(pipeline.loaded).children())  # runs only where the denoiser really does
    hook = inside.register_forward_hook(lambda *_: runs.append(1))
    try:
        sampling = SAMPLING._replace(seed=11)
        shared, _ = pipeline.shared("an animal", sampling, 3)
        assert len(runs) == 3
        for prompt in CATS.members:
            pipeline.call(prompt, sampling, shared=shared)
        assert len(runs) == 3 + 2 * 1
        pipeline.shared("an animal", sampling, 3)  # another provider over the same base
        assert len(runs) == 5
        pipeline.call("a cat", sampling)
        assert len(runs) == 9
    finally:
        hook.remove()


def test_the_more_steps_are_shared_the_more_alike_pictures_are(pipeline):
    apart = []
    for steps in (1, 2, 3):
        shared, _ = pipeline.shared("an animal", SAMPLING, steps)
        a, b = (pixels(pipeline.call(p, SAMPLING, shared=shared)) for p in CATS.members)
        apart.append(np.abs(a.astype(int) - b).mean())
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > apart[-1]


def test_what_is_saved_is_planned_and_kept(tmp_path, monkeypatch):
    counter = tmp_path / "power" / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("7")
    monkeypatch.setattr(meters, "COUNTERS", tmp_path / "power")
    sharing = provider(shared_steps=3, groups=[CATS])
    prompts = [*CATS.members, "a harbour"]
    with closing(PictureStore(tmp_path)) as store:
        plan = plan_pictures([sharing], prompts, store)
        assert (plan.to_make, plan.steps, plan.saved_steps) == (3, 3 + 1 + 1 + 4, 3)
        assert "steps saved                  3" in plan.describe()
        found = make_pictures([sharing], prompts, store)
        kept = {prompt: found[prompt, "d"] for prompt in prompts}
        assert [(k.steps, k.shared_steps) for k in kept.values()] == [(1, 3), (1, 3), (4, 0)]
        assert kept["a cat"].settings["common"] == "an animal"
        # The clock times the steps that are run, which are a part of what a picture takes.
        assert all(0 < k.steps * k.seconds_per_step < k.seconds for k in kept.values())
        assert {k.joules for k in kept.values()} == {0.0}  # the counter stands still
        assert make_pictures([sharing], prompts, store)["a cat", "d"] == kept["a cat"]
        # A picture that is made later, without the rest of its group, is the same.
        with closing(PictureStore(tmp_path / "other")) as other:
            alone = make_pictures([sharing], ["a cat"], other)["a cat", "d"]
        assert alone.picture == kept["a cat"].picture


def test_prompts_are_grouped_by_their_embeddings():
    embeddings = np.array([[1, 0, 0], [0, 1, 0], [0.99, 0.1, 0], [0.95, 0, 0.1], [0, 0, 1.0]])
    (group,) = nearby(list("abcde"), embeddings, 0.05)
    assert group == Group("a", ("a", "c", "d"))
    assert nearby(list("abcde"), embeddings, 1e-6) == []
    prompts = ("a cat", "a cat.", "many ships far out in a storm at night")
    sharing = provider(shared_steps=2, distance=0.1, prompts=prompts)
    assert sharing.batches(prompts) == [["a cat", "a cat."], [prompts[2]]]
    assert sharing.settings("a cat.")["common"] == "a cat"
    assert sharing.settings(prompts[2])["common"] is None


def test_all_that_can_change_a_picture_changes_its_key(tmp_path, monkeypatch):
    tiny_pipeline("tiny:stable-diffusion").scheduler.save_pretrained(tmp_path)

    def key(prompt="a cat", name="tiny:stable-diffusion", **changes):
        sampling = SAMPLING._replace(**{k: changes.pop(k) for k in list(changes)
                                        if k in Sampling._fields})  # fmt: skip
        weights = Weights(name, **{k: changes.pop(k) for k in list(changes)
                                   if k in Weights._fields})  # fmt: skip
        return key_of(DiffusersProvider("d", weights, sampling, **changes).settings(prompt))

    before = key()
    assert key(device="cuda") == before
    assert key(shared_steps=2) == before  # it is in no group
    others = [
        key("a dog"), key(name="tiny:stable-diffusion-3"), key(revision="2"), key(dtype="bfloat16"),
        key(steps=5), key(guidance=4.0), key(seed=4), key(width=64), key(height=64),
        key(scheduler="PNDMScheduler"), key(negative_prompt="rain"),
        key(lora=Lora("mine")), key(lora=Lora("mine", 0.5)),
        key(shared_steps=2, groups=[CATS]), key(shared_steps=3, groups=[CATS]),
        key(shared_steps=2, groups=[Group("a pet", CATS.members)]),
        key(name=str(tmp_path)),
    ]  # fmt: skip
    (tmp_path / "scheduler_config.json").write_text("{}")
    others.append(key(name=str(tmp_path)))
    monkeypatch.setattr("rlli_jax.generation.diffusers.version", lambda package: "99.1")
    others.append(key())
    assert len({before, *others}) == 1 + len(others)
    monkeypatch.setattr("rlli_jax.generation.diffusers.version", lambda package: "99.2")
    assert key() == others[-1]  # a minor version


def test_a_models_name_counts_by_the_commit_that_this_machine_has(tmp_path, monkeypatch):
    """A model that changes behind its name shares no pictures with what it was."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commits = ["0123456789" * 4, "abcdef0123" * 4]

    def downloaded(name, commit, ref="main"):
        file = tmp_path / f"models--{name.replace('/', '--')}" / "refs" / ref
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit)

    def provider_of(revision=None, lora=None):
        return DiffusersProvider("d", Weights("org/model", revision), SAMPLING, lora=lora)

    named, tuned = provider_of(), provider_of(lora=Lora("org/lora"))
    keys = [key_of(named.settings("a cat"))]
    assert named.settings("a cat")["revision"] is None
    for commit in commits:  # also of a provider that is there already
        downloaded("org/model", commit)
        assert named.settings("a cat")["revision"] == commit
        keys.append(key_of(named.settings("a cat")))
        assert key_of(provider_of(commit).settings("a cat")) == keys[-1]
    before = key_of(tuned.settings("a cat"))
    downloaded("org/lora", commits[0])
    keys += [before, key_of(tuned.settings("a cat"))]
    assert len(set(keys)) == len(keys)
    downloaded("org/model", commits[0], "fp16")
    assert provider_of("fp16").settings("a cat")["revision"] == commits[0]
    assert provider_of("2").settings("a cat")["revision"] == "2"  # not here


def test_a_folder_is_loaded_by_the_class_that_it_names(tmp_path):
    tiny_pipeline("tiny:stable-diffusion").save_pretrained(tmp_path)
    loaded = Pipeline(Weights(str(tmp_path), device="cpu")).loaded
    assert type(loaded).__name__ == "StableDiffusionPipeline"
    (found,) = made(provider(str(tmp_path)), ["a cat"]).values()
    assert np.array_equal(found, ordinary("tiny:stable-diffusion", "a cat"))


def test_low_rank_weights_change_pictures_but_not_the_shared_steps(tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    trained = tiny_pipeline("tiny:stable-diffusion")
    trained.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"],
                                        init_lora_weights=False))  # fmt: skip
    weights = get_peft_model_state_dict(trained.unet)
    save_file({f"unet.{k}": 20 * v for k, v in weights.items()}, tmp_path / "lora.safetensors")
    lora = Lora(str(tmp_path / "lora.safetensors"))
    (plain,) = made(provider(), ["a cat"]).values()
    (tuned,) = made(provider(lora=lora), ["a cat"]).values()
    assert not np.array_equal(plain, tuned)
    assert np.array_equal(made(provider(), ["a cat"])["a cat"], plain)  # they are taken off again
    all_shared = provider(lora=lora, shared_steps=4, groups=[Group("a cat", ("a cat",))])
    assert np.array_equal(made(all_shared, ["a cat"])["a cat"], plain)


def test_what_a_safety_checker_refuses_is_a_hole(monkeypatch, tmp_path):
    loaded = load(Weights("tiny:stable-diffusion", device="cpu")).loaded
    original = type(loaded).run_safety_checker

    def check(self, image, device, dtype):
        image, _ = original(self, image, device, dtype)
        return image, [True]

    monkeypatch.setattr(type(loaded), "run_safety_checker", check)
    with closing(PictureStore(tmp_path)) as store:
        kept = make_pictures([provider()], ["a cat"], store)["a cat", "d"]
    assert (kept.picture, kept.reason) == (None, "the model's safety checker refused the picture")


@pytest.mark.parametrize(
    ("name", "sampling", "problem"),
    [
        ("tiny:other", SAMPLING, "the tiny models are"),
        ("./nowhere", SAMPLING, "there is no such folder"),
        (".", SAMPLING, "this folder is no pipeline of diffusers"),
        (None, SAMPLING._replace(scheduler="DDIMSchduler"), "did you mean DDIMScheduler"),
        (None, SAMPLING._replace(scheduler="FlowMatchEulerDiscreteScheduler"), "another kind of"),
        (None, SAMPLING._replace(width=33), "divisible by 8"),
    ],
)
def test_mistakes_are_one_sentence_and_finished_pictures_are_kept(
    tmp_path, monkeypatch, name, sampling, problem
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    bad = DiffusersProvider("bad", Weights(name or "tiny:stable-diffusion"), sampling)
    with closing(PictureStore(tmp_path / "store")) as store:
        with pytest.raises(InputError, match=problem):
            make_pictures([provider(), bad], ["a cat"], store)
        assert plan_pictures([provider()], ["a cat"], store).cached == 1


def test_a_pipeline_without_a_denoiser_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline"}))
    with pytest.raises(InputError, match="it cannot be loaded"):
        Pipeline(Weights(str(tmp_path)))


def test_a_device_that_is_not_there_is_one_sentence():
    with pytest.raises(InputError, match="device gpu: the model cannot be put there"):
        Pipeline(Weights("tiny:stable-diffusion", device="gpu"))
