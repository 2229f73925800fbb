"""From prompts to a report: a catalog whose pictures are generated."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_study
import yaml

from rlli_jax.errors import InputError
from rlli_jax.studies import load_study

DRAW = """
import sys, random
from PIL import Image
prompt, output, seed = sys.argv[1:]
if prompt == "an owl" and seed == "1":
    print("owls are asleep", file=sys.stderr); sys.exit(3)
rng = random.Random(prompt + seed)
base = rng.randrange(200)
image = Image.new("RGB", (16, 12))
image.putdata([tuple(base + rng.randrange(50) for _ in range(3)) for _ in range(192)])
image.save(output)
with open("drawn.log", "a") as log:
    log.write(prompt + "\\n")
"""


def write(folder, **changes):
    """A study of three users whose pictures a program draws; ``changes`` of the block generate."""
    folder.mkdir(exist_ok=True)
    (folder / "draw.py").write_text(DRAW)
    command = "{python} draw.py {prompt} {output} {seed}"
    generate = {
        "requests": ["a boat", "a cat", "an owl"],
        "providers": [
            {"name": "ink", "kind": "command", "command": command},
            {"name": "oil", "kind": "command", "command": command, "seed": 1},
        ],
        "store": "pictures",
    } | changes
    return tiny_study.write_config(
        folder,
        population={"sample": {"size": 3}},
        catalog={"generate": generate},
        judge={"kind": "psychometric", "on_missing": "mask"},
        policies={"PPO": tiny_study.LEARNED["PPO"] | {"iterations": 2}},
        table={},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, compilations):
    """A study that was carried out: (its config, its run directory)."""
    folder = tmp_path_factory.mktemp("generated")
    config = write(folder)
    tiny_study.carry_out(config, folder / "run")
    return config, folder / "run"


def test_a_study_generates_its_pictures_and_learns_on_them(made):
    config, run = made
    drawn = (config.parent / "drawn.log").read_text().splitlines()
    assert sorted(drawn) == sorted(["a boat", "a cat", "an owl", "a boat", "a cat"])
    summary = json.loads((run / "policies" / "PPO" / "summary.json").read_text())
    assert summary["name"] == "PPO"


def test_the_report_shows_prompts_settings_and_why_there_is_no_picture(made):
    from rlli_jax.studies import render

    page = render(made[1]).read_text()
    assert "owls are asleep" in page
    assert "seed 1" in page
    assert "How the pictures were made" in page
    assert "Energy was not measured, as no counter" in page


def test_what_sharing_saves_follows_from_how_pictures_were_made(made, tmp_path):
    from rlli_jax.report.generated import SECTION, making
    from rlli_jax.run_files.generated import GeneratedPicture, GeneratedPictures

    def picture(request, provider, common, seconds, **more):
        more |= {"steps": 2, "shared_steps": 6} if common else {"steps": 8}
        more |= {"settings": {"common": common}, "seconds": seconds}
        more |= {"seconds_per_step": seconds / 8}
        return GeneratedPicture(request=request, provider=provider, **more)

    pictures = [
        *(picture(r, 0, "a boat", 4.0, joules=40.0) for r in range(2)),
        picture(2, 0, None, 8.0, joules=160.0),
        *(picture(r, 1, "a boat", 16.0, watts=300.0, joules=1.0) for r in range(2)),
        GeneratedPicture(request=2, provider=1, settings={}, reason="it is rude"),
    ]
    first, second = making(pictures[:3]), making(pictures[3:])
    # The six steps of the two boats are run once; a step took 0.5, 0.5 and 1 s.
    assert (first.pictures, first.steps, first.saved) == (3, 2 + 2 + 6 + 8, 6)
    assert first.saved_seconds == 6 * 0.5
    assert first.power == (240 / 16, False)
    assert first.joules(first.saved_seconds) == 3 * 15
    assert (second.pictures, second.saved, second.saved_seconds) == (2, 6, 12)
    assert second.power == (300, True)  # what is stated wins
    assert making(pictures[-1:]).joules(1.0) is None

    GeneratedPictures(pictures=pictures).write(tmp_path / "generated.json")
    shutil.copy(made[1] / "table.npz", tmp_path)
    told = SECTION.context(SimpleNamespace(path=tmp_path))["generated"]
    names = ("name", "saved", "saved_seconds", "energy", "saved_energy")
    row = [told["rows"][0][name].replace("\N{NO-BREAK SPACE}", " ") for name in names]
    assert row == ["ink", "6 (25.0 %)", "3.0 s", "240 J", "45 J"]
    energy = told["energy"].replace("\N{NO-BREAK SPACE}", " ")
    assert "the config states: oil 300 W" in energy
    assert "(RAPL), which count all that the machine did meanwhile: ink 15 W" in energy


def test_a_plan_makes_no_picture(tmp_path, rlli):
    config = write(tmp_path)
    status, out, err = rlli("judge", config, "--dry-run")
    assert (status, err) == (0, "")
    assert "to make                      6" in out
    assert "18 questions" in out
    assert not (tmp_path / "pictures").exists()
    status, out, err = rlli("generate", config, "--dry-run")
    assert (status, err) == (0, "")
    assert "to make                      6" in out
    assert not (tmp_path / "pictures").exists()


def test_pictures_alone_are_made_and_exported_as_a_catalog(tmp_path, rlli):
    config = write(tmp_path)
    status, out, err = rlli("generate", config, "--export", tmp_path / "out")
    assert (status, err) == (0, "")
    assert "6 pictures: 0 were stored, 5 made, 1 refused" in out
    from rlli_jax import Catalog

    catalog = Catalog.from_manifest(tmp_path / "out" / "manifest.csv")
    assert catalog.providers == ("ink", "oil")
    assert catalog.requests == ("a boat", "a cat", "an owl")
    assert catalog.picture(2, 1) is None
    assert catalog.picture(0, 0).pixels.shape == (12, 16, 3)


def test_prompts_come_from_a_file_too(tmp_path):
    (tmp_path / "prompts.txt").write_text("a boat\n\n  a   cat\n")
    study = load_study(write(tmp_path, requests="prompts.txt"))
    assert [prompt for prompt in study.catalog.generate.prompts()] == ["a boat", "a cat"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"requests": ["a cat", " "]}, "catalog.generate.requests: the prompt ' ' is empty"),
        ({"requests": ["a cat", "a  cat"]}, "catalog.generate.requests: 'a cat' is there twice"),
        ({"requests": []}, "there is no prompt"),
        ({"requests": "nowhere.txt"}, "nowhere.txt cannot be read"),
        ({"providers": []}, "catalog.generate.providers"),
        (
            {"providers": [{"name": "x", "kind": "magic"}]},
            "catalog.generate.providers.0.kind: must be one of command",
        ),
        (
            {"providers": [{"name": "x", "kind": "command", "command": "draw {prompt}"}]},
            "catalog.generate.providers.0.command: the command has no {output}",
        ),
        (
            {
                "providers": [
                    {
                        "name": "x",
                        "kind": "diffusers",
                        "model": "tiny:stable-diffusion",
                        "steps": 4,
                        "shared_steps": 5,
                    }
                ]
            },
            "catalog.generate.providers.0: shared_steps is 5, but there are 4 steps in all",
        ),
        (
            {"groups": [{"prompt": "pets", "requests": ["a ct"]}]},
            "catalog.generate.groups.0: 'a ct' is none of the requests; did you mean 'a cat'",
        ),
        (
            {"providers": [{"name": "x", "kind": "images_api", "model": "m", "size": "big"}]},
            "catalog.generate.providers.0.size",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, problem):
    with pytest.raises(InputError) as caught:
        load_study(write(tmp_path, **changes)).catalog.load()
    assert problem in str(caught.value)


def test_a_resolved_config_is_read_as_it_was_meant(made):
    config, run = made
    assert load_study(run / "config.yaml").catalog == load_study(config).catalog
    content = yaml.safe_load((run / "config.yaml").read_text())
    assert content["catalog"]["generate"]["store"] == str(config.parent / "pictures")


TINY = {"kind": "diffusers", "model": "tiny:stable-diffusion-3", "steps": 4, "width": 32,
        "height": 32}  # fmt: skip
SHARING = {
    "requests": ["a red boat", "a blue boat"],
    "groups": [{"prompt": "a boat", "requests": ["a red boat", "a blue boat"]}],
    "providers": [{"name": "sharing", **TINY}, {"name": "alone", "seed": 1, **TINY}],
}


def test_qoe_against_shared_steps_is_a_sweep_with_its_figure(tmp_path, rlli):
    import xarray as xr

    config = write(tmp_path, **SHARING)
    content = yaml.safe_load(config.read_text())
    key = "catalog.generate.providers.sharing.shared_steps"
    content["sweep"] = {"grid": {key: [0, 2, 4]}}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    status, _, err = rlli("sweep", config, "--output", tmp_path / "run")
    assert status == 0, err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "shared_steps" in page
    assert "<svg" in page
    assert "What providers offer" in page
    assert (tmp_path / "run" / "figures" / f"providers-{key}.svg").exists()
    with xr.open_dataset(tmp_path / "run" / "sweep.nc") as results:
        assert results.sizes["point"] == 3
        worth = results["objective"].mean("seed").values[0]
        # Of four steps, two or all of which two pictures share, each is spared half the shared.
        assert results["saved"].sel(provider="sharing").values.tolist() == [0, 0.25, 0.5]
        assert results["saved"].sel(provider="alone").values.tolist() == [0, 0, 0]
        qoe = results["offered"].mean("person")
        told = f"{qoe.sel(provider='sharing').mean('request').values[2]:.2f}"
    assert f'<td class="num">4</td><td class="num">{told}</td>' in page  # three users: no interval
    assert len(set(worth.round(6))) > 1  # other pictures, other QoE
    # 2 x 2 ordinary pictures; with two steps shared two more, with all four one for both.
    records = list((tmp_path / "pictures" / "records").glob("*/*.json"))
    assert len(records) == 8


def test_shared_steps_are_charged_once_for_each_group():
    from rlli_jax.experiments.generated import spared_parts
    from rlli_jax.run_files.generated import GeneratedPicture, GeneratedPictures

    def picture(request, provider, common, shared, refused=False):
        steps = {} if refused else {"steps": 8 - shared, "shared_steps": shared}
        settings = {"common": common}
        return GeneratedPicture(request=request, provider=provider, settings=settings, **steps)

    parts = spared_parts(
        GeneratedPictures(
            pictures=[
                *(picture(r, 0, "a boat", 2) for r in range(3)),
                picture(3, 0, None, 0),
                *(picture(r, 1, "a boat", 8) for r in range(2)),
                picture(2, 1, "a boat", 8, refused=True),
                picture(3, 1, "a cat", 4),  # alone in its group
            ]
        ),
        (4, 2),
    )
    # Of 8 steps a picture runs 8 - n + n / m.
    runs = 8 * (1 - parts)
    np.testing.assert_allclose(runs, [[6 + 2 / 3, 4], [6 + 2 / 3, 4], [6 + 2 / 3, 8], [8, 8]])
    assert runs[:3, 0].sum() == pytest.approx(3 * 6 + 2)
    alone = GeneratedPictures(pictures=[picture(0, 0, "a cat", 4)])
    assert spared_parts(alone, (1, 1)) is None
    assert spared_parts(None, (1, 1)) is None


def test_a_market_knows_what_its_providers_share(tmp_path, compilations):
    """The same pictures: a task of a group runs its own steps and its part of the shared ones."""
    from rich.console import Console

    from rlli_jax.experiments.market.study import prepare

    sharing = SHARING["providers"][0] | {"shared_steps": 1}
    config = write(tmp_path, **SHARING | {"providers": [sharing, SHARING["providers"][1]]})
    content = yaml.safe_load(config.read_text())
    for name in ("table", "environment", "checkpoint_every"):
        del content[name]
    fleet = {"sample": {"providers": 2}}
    content |= {
        "market": {"fleet": fleet, "horizon": 50_000},
        "policies": {"Random": {"learner": "random"}},
        "evaluation": {"episodes": 2, "optimum": False},
    }
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    for _ in range(2):  # asked, and read again
        found = prepare(load_study(config), tmp_path, Console(quiet=True))
        assert found.params.shared.tolist() == [[0.125, 0.0], [0.125, 0.0]]
    with pytest.raises(InputError, match=r"evaluation\.optimum: there is none where denoising"):
        prepare(load_study(config, ["evaluation.optimum=true"]), None, Console(quiet=True))
