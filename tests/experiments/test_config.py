"""A config says what a study is; every mistake in it is one sentence with the path of the key."""

from pathlib import Path

import pytest
import tiny_study
import yaml

from rlli_jax.errors import InputError
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.yaml_blocks import from_yaml, parse_as, read_yaml, to_yaml
from rlli_jax.studies import load_study

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def config(tmp_path):
    return tiny_study.write_config(tmp_path)


def sentence(config, *overrides):
    """The message of the InputError, checked to be one sentence that names the file."""
    with pytest.raises(InputError) as error:
        load_study(config, overrides)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    if not message.startswith("override"):
        assert message.startswith(f"{config}")
    return message.removeprefix(str(config)).removeprefix(": ")


@pytest.mark.parametrize("name", ["paper.yaml", "memory.yaml", "agiqa3k.yaml"])
def test_the_configs_that_come_along_are_valid_and_come_back_from_their_dump(name):
    study = load_study(CONFIGS / name)
    again = parse_as(
        StudyConfig, yaml.safe_load(yaml.safe_dump(study.dump())), source="dump", folder=None
    )
    assert again == study
    assert again.dump() == study.dump()


def test_every_kind_of_block_comes_back_from_its_dump(tmp_path):
    changes = {
        "judge": {"kind": "psychometric", "preset": "replicated", "samples": 3},
        "population": {"csv": "users.csv"},
        "catalog": {"folder": "pictures"},
        "evaluation": {
            "human": {
                "kind": "recorded",
                "path": "human.csv",
                "user": "human",
                "columns": {"score": ["a", "b"]},
            }
        },
    }
    study = load_study(tiny_study.write_config(tmp_path, **changes))
    assert parse_as(StudyConfig, study.dump(), source="dump", folder=None) == study


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    manifest, scores = tiny_study.write_scores(tmp_path / "data")
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    content = tiny_study.content(tmp_path / "data") | {
        "catalog": {"manifest": "../data/images.csv", "pictures": False},
        "judge": {"kind": "recorded", "path": "../data/scores.csv", "scale": "1-5"},
    }
    (tmp_path / "configs" / "a.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = load_study(Path("../configs/a.yaml"))
    assert (study.catalog.manifest, study.judge.path) == (manifest, scores)
    assert study.dump()["judge"]["path"] == str(scores)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        # unknown keys
        ("sedes=3", "sedes: unknown key, did you mean seeds? The keys here are name, "),
        (
            "policies.PPO.config.hiden=[3]",
            "policies.PPO.config.hiden: unknown key, did you mean hidden? The keys ",
        ),
        (
            "policies.DQN.hyperparams.tua=1",
            "policies.DQN.hyperparams.tua: unknown key, did you mean tau? The keys here ",
        ),
        (
            "policies.Random.iterations=3",
            "policies.Random.iterations: unknown key; the keys here are observation, learner.",
        ),
        (
            "judge.preset=x",
            "judge.preset: unknown key; the keys here are ",
        ),
        # wrong types
        ("seeds=many", 'seeds: must be a valid integer (given: "many").'),
        ("seeds=true", "seeds: must be a valid integer (given: true)."),
        ("seeds=[1]", "seeds: must be a valid integer."),
        ("policies=", "policies: must be a valid dictionary (given: null)."),
        ("policies.PPO.config.hidden=[8, x]", "policies.PPO.config.hidden.1: must be a valid "),
        ("judge.columns={user: 5}", "judge.columns.user: must be a valid string (given: 5)."),
        # impossible values
        ("seeds=0", "seeds: must be greater than 0 (given: 0)."),
        ("policies.PPO.iterations=-1", "policies.PPO.iterations: must be greater than 0"),
        ("policies.PPO.hyperparams.gamma=1.5", "policies.PPO.hyperparams.gamma: must be less "),
        ("policies.PPO.hyperparams.gamma=.nan", "policies.PPO.hyperparams.gamma: must be "),
        ("table.held_out_requests=1", "table.held_out_requests: must be less than 1 (given: 1)."),
        (
            "policies.DQN.config.buffer_size=63",
            "policies.DQN.config: buffer_size = 63 is no multiple of num_envs = 4; choose one ",
        ),
        ("judge.scale=stars", "judge.scale: scale 'stars' is unknown; write the two ends "),
        ("judge.scale=[yes, no]", "judge.scale: the label true is no text; put it into quotes "),
        ("judge.scale=5", "judge.scale: write a name, two ends such as 1-7, or a list of labels"),
        ("judge.scale=[1, 3, 2]", "judge.scale: scale '1/3/2': the labels are numbers that go up "),
        (
            "judge={kind: transformers, model: m, scale: 0-101}",
            "judge.scale: a language model chooses one of the labels, of which this scale has 102",
        ),
        ("judge.kind=llm", "judge.kind: must be one of psychometric, recorded"),
        (
            "policies.PPO.learner=a2c",
            "policies.PPO: learner must be one of ppo, dqn, reinforce, sac, ",
        ),
        ("policies={}", "policies: dictionary should have at least 1 item"),
        ("policies={../x: {learner: random}}", "policies: '../x' cannot be the name of a folder"),
        ("name=../x", "name: string should match pattern"),
        ("environment.assignment=solo", "environment.assignment: must be 'shared', "),
        ("policies.Random.observation=[]", "policies.Random.observation: tuple should have at "),
        ("policies.Random.observation=[nose]", "policies.Random.observation.0: must be 'action'"),
        ("policies.Random.observation=[user, user]", "policies.Random.observation: 'user' is"),
        # missing keys
        ("catalog={}", "catalog: give exactly one of studio, folder, manifest, "),
        ("policies.PPO={learner: ppo}", "policies.PPO.iterations: this key is missing; add it."),
        ("judge={kind: recorded}", "judge.path: this key is missing; add it."),
        (
            "judge={}",
            "judge.kind: must be one of psychometric, recorded, transformers, openai (given",
        ),
        ("evaluation.human={kind: recorded}", "evaluation.human.path: this key is missing; add"),
        # blocks that contradict each other
        ("catalog.studio=true", "catalog: give exactly one of studio, folder, manifest, "),
        ("population={sample: {size: 3}}", "population.sample: people who are drawn have recorded"),
        (
            "population={csv: a.csv, range: 7-1}",
            "population.range: the traits are on the scale ",
        ),
        (
            "population={csv: a.csv, wording: answers}",
            "population: the wording is answers, which only population.questionnaire has; ",
        ),
        ("judge={kind: psychometric}", "population: this key is missing; a psychometric judge "),
        ("environment.assignment=joint", "policies.DQN.learner: dqn makes one choice a step, "),
        (
            "policies.Random.observation=[request]",
            "policies.Random.observation: request is the number of a request, which tells nothing",
        ),
        (
            "policies.PPO.hyperparams.total_iterations=7",
            "policies.PPO: hyperparams.total_iterations follows from iterations; remove it.",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_path_of_the_key(config, override, expected):
    assert sentence(config, override).startswith(expected)


def test_the_user_is_observed_only_where_users_take_turns(config):
    overrides = ("environment.assignment=shared", "policies.PPO.observation=[user]")
    assert sentence(config, *overrides).startswith(
        "policies.PPO.observation: user needs environment.assignment sequential"
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: tiny\nseeds: [1, 2\npolicies: 3\n", ", line 3, column 9: malformed YAML, "),
        ("name: tiny\n\tseeds: 3\n", ", line 2, column 1: malformed YAML, "),
        ("a:\n  PPO: 1\n  DQN: 2\n  PPO: 3\n", ", line 4, column 3: malformed YAML, key 'PPO' is "),
        ("- a\n- b\n", "a config is a mapping of keys to values; see configs/paper.yaml."),
        ("", "a config is a mapping of keys to values; see configs/paper.yaml."),
    ],
)
def test_malformed_yaml_names_the_line(tmp_path, text, where):
    (tmp_path / "a.yaml").write_text(text)
    assert sentence(tmp_path / "a.yaml").startswith(where)


def test_anchors_and_merged_keys_are_no_duplicates(tmp_path, config):
    text = config.read_text().replace("policies:", "policies:\n  A: &a {learner: random}")
    text += "".join(f"{line}\n" for line in ("description: >-", "  merged"))
    text = text.replace("  Random:", "  B: {<<: *a, learner: round_robin}\n  Random:")
    (tmp_path / "b.yaml").write_text(text)
    policies = load_study(tmp_path / "b.yaml").policies
    assert (policies["A"].learner, policies["B"].learner) == ("random", "round_robin")


def test_an_override_changes_no_other_policy_that_shares_an_anchor():
    policies = load_study(CONFIGS / "paper.yaml", ["policies.PPO.hyperparams.gamma=0.5"]).policies
    assert policies["PPO"].hyperparams.gamma == 0.5
    assert policies["PPO knowing the persona"].hyperparams.gamma == 0.9


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    assert sentence(tmp_path / "no.yaml") == "there is no such config file."
    assert sentence(tmp_path / "seeds=3") == (
        "there is no such config file; name the config first, and behind it what to change."
    )
    assert sentence(tmp_path) == " is a folder; name a config, a YAML file."
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    assert sentence(tmp_path / "latin.yaml").startswith("cannot be read (")


def test_overrides_reach_every_key(tmp_path):
    policies = {
        "PPO knowing the persona": tiny_study.LEARNED["PPO"],
        "DQN 0.9": tiny_study.LEARNED["DQN"],
        "Random": {"learner": "random"},
    }
    study = load_study(
        tiny_study.write_config(tmp_path, policies=policies),
        [
            "seeds=3",
            "policies.PPO knowing the persona.hyperparams.learning_rate=1e-3",
            "policies.PPO knowing the persona.config.hidden=[5, 6]",
            "policies.DQN 0.9.hyperparams.gamma=0.8",
            "policies.Extra.learner=greedy",
            "description=a = b",
            "evaluation.episodes=7",
        ],
    )
    ppo, dqn = study.policies["PPO knowing the persona"], study.policies["DQN 0.9"]
    assert (ppo.learner, dqn.learner) == ("ppo", "dqn")
    assert study.seeds == 3
    assert ppo.hyperparams.learning_rate == 1e-3
    assert ppo.config.hidden == (5, 6)
    assert dqn.hyperparams.gamma == 0.8
    assert study.policies["Extra"].learner == "greedy"
    assert study.description == "a = b"
    assert study.evaluation.episodes == 7
    assert len(study.policies) == 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seeds", "override 'seeds': write key.path=value, such as seeds=3."),
        ("=3", "override '=3': write key.path=value, such as seeds=3."),
        ("a..b=3", "override 'a..b=3': write key.path=value, such as seeds=3."),
        ("seeds=[", "override 'seeds=[': the value is malformed YAML."),
        ("seeds.x=1", "override 'seeds.x=1': seeds is a value, not a block of keys."),
    ],
)
def test_a_bad_override_is_one_sentence(config, override, expected):
    assert sentence(config, override) == expected


def test_schedules_span_the_training(config):
    for policy in load_study(config, ["policies.PPO.iterations=9"]).policies.values():
        if isinstance(policy, Learned):
            assert policy.hyperparams.total_iterations == policy.iterations
            assert policy.hyperparams.anneal == 1
    # What a dump says is accepted, since it agrees.
    load_study(config, ["policies.PPO.hyperparams.total_iterations=24"])


def test_nobody_observes_a_personality_that_recorded_scores_do_not_tell(tmp_path):
    config = tiny_study.write_config(
        tmp_path,
        policies={"PPO": tiny_study.LEARNED["PPO"] | {"observation": ["reward", "persona"]}},
    )
    with pytest.raises(InputError, match=r"policies\.PPO\.observation: persona is the users' pers"):
        load_study(config)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed=9223372036854775808", "seed: must be less than 92233720368547"),
        ("seed=-9223372036854775809", "seed: must be greater than or equal to -92233720368547758"),
        ("table.split_seed=-1", r"table\.split_seed: must be greater than or equal to 0"),
    ],
)
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, override, problem):
    with pytest.raises(InputError, match=problem):
        load_study(tiny_study.write_config(tmp_path), [override])
    largest = load_study(tiny_study.write_config(tmp_path), ["seed=9223372036854775807"])
    assert largest.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-2", 0.01), ("5e6", 5e6), ("-2E+4", -2e4), (".5e1", 5.0), ("1.e3", 1e3), ("7", 7)],
)
def test_numbers_are_numbers_however_they_are_written(tmp_path, text, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"rate: {text}\nrates: [{text}]\n")
    assert read_yaml(path) == {"rate": value, "rates": [value]}
    assert read_yaml(path, [f"rate={text}", "x=1"])["rate"] == value
    assert isinstance(read_yaml(path)["rate"], type(value))


def test_a_whole_number_may_have_an_exponent(tmp_path):
    config = tiny_study.write_config(tmp_path)
    study = load_study(config, ["seeds=1e1", "policies.PPO.iterations=1.0e+2"])
    assert (study.seeds, study.policies["PPO"].iterations) == (10, 100)
    assert isinstance(study.seeds, int)
    with pytest.raises(InputError, match=r"seeds: must be a valid integer \(given: 0.5\)"):
        load_study(config, ["seeds=5e-1"])


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    content = {"user": "1e5", "others": ["2e-3", "7", "e5"], "number": 1e-5}
    assert from_yaml(to_yaml(content)) == content
    path = tmp_path / "a.yaml"
    path.write_text("user: '1e5'\n")
    assert read_yaml(path) == {"user": "1e5"}


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        (
            "policies.ppo.iterations=3",
            "no policies.ppo, did you mean policies.PPO? The policies are",
        ),
        (
            "policies.DNQ.iterations=3",
            "no policies.DNQ, did you mean policies.DQN? The policies are",
        ),
        (
            "policies.New.iterations=3",
            "no policies.New; the policies are 'PPO', 'DQN', 'Random'; a",
        ),
        ("Seeds=3", "no Seeds; write seeds."),
        ("environment.Rounds=3", "no environment.Rounds; write environment.rounds."),
    ],
)
def test_an_override_of_what_is_not_there_names_what_is(config, override, meant):
    assert f"override '{override}': there is {meant}" in sentence(config, override)


def test_a_new_policy_may_be_given_whole_or_by_its_learner_first(config):
    study = load_study(config, ["policies.New={learner: greedy}", "policies.B.learner=random"])
    assert {"New", "B"} < set(study.policies)
