"""QoE as the reward function of trainers elsewhere."""

import numpy as np
import pytest

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import scale_of
from rlli_jax.judges.psychometric import PsychometricJudge
from rlli_jax.oracle import ask, build_questions
from rlli_jax.personas import Persona, Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import fit_model
from rlli_jax.rewards import judge_reward, model_reward, table_reward

QOE = np.array([[[0.1, 0.2, np.nan]], [[0.7, 0.4, 0.5]]])  # two users, one request
PEOPLE = Population((Persona("ann", (4.5, 2, 3, 3, 3)), Persona("ben", (1, 3, 4, 2, 5))))


@pytest.fixture
def reward():
    table = QoETable.from_array(
        QOE,
        users=PEOPLE.names,
        requests=("a cat",),
        providers=("SD", "SD XL", "Ink"),
        judge="made up",
    )
    return table_reward(table, PEOPLE)


def test_a_completion_earns_what_the_table_says_of_the_first_provider_it_names(reward):
    ann, ben = reward.prompts
    assert "very high Openness" in ann
    completions = [" choose SD", "the SD XL, not the SD", "ink", "SDXL", "choose Ink"]
    assert reward([ann, ann, ben, ben, ann], completions) == pytest.approx([0.1, 0.2, 0.5, 0, 0])
    assert reward(prompts=[ben] * 3, completions=list(reward.completions)) == pytest.approx(
        QOE[1, 0]
    )


def test_conversations_columns_and_bytes_are_taken_too(reward):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
    said = [{"role": "assistant", "content": "SD"}]
    told = {"user": ["ben"], "request": ["a cat"]}
    assert reward([asked], [said], **told, mode="train", trainer_state=None) == pytest.approx([0.7])
    plain = [{"role": "user", "content": reward.prompts[0]}]
    assert reward(np.array([plain]), [said]) == pytest.approx([0.1])
    assert reward([reward.prompts[1].encode()], [b"SD"]) == pytest.approx([0.7])
    assert [row["user"] for row in reward.rows()] == ["ann", "ben"]


def test_what_nobody_knows_is_one_sentence(reward):
    with pytest.raises(InputError, match="is none of this reward's; take them from"):
        reward(["Which provider?"], ["SD"])
    with pytest.raises(InputError, match='column user names "eve"'):
        reward(["Which?"], ["SD"], user=["eve"], request=["a cat"])
    with pytest.raises(InputError, match="2 prompts but 1 completions"):
        reward(list(reward.prompts), ["SD"])


def test_a_judge_is_asked_once_and_only_for_what_was_named():
    people, catalog, scale = (
        Population.sample(3, group="women 21-40", seed=1),
        Catalog.studio(),
        scale_of("adjectives"),
    )
    judge = PsychometricJudge(catalog)
    asked = []
    rate = judge.rate
    judge.rate = lambda questions: asked.extend(questions) or rate(questions)
    reward = judge_reward(judge, people, catalog, scale, samples=2)
    prompts = [reward.prompts[0], reward.prompts[0], reward.prompts[7]]
    first = reward(prompts, ["choose Noir", "Noir", "choose Prism"])
    assert len(asked) == 4  # two cells, two samples
    assert reward(prompts, ["Noir", "Noir", "Prism"]) == first
    assert len(asked) == 4
    table = QoETable.from_answers(
        ask(PsychometricJudge(catalog), build_questions(people, catalog, scale, 2)),
        population=people, catalog=catalog, scale=scale, judge=judge.identity, samples=2,
    )  # fmt: skip
    assert first == pytest.approx(table_reward(table, people)(prompts, ["Noir", "Noir", "Prism"]))


def test_a_model_of_qoe_rewards_people_whom_nobody_asked():
    generator = np.random.default_rng(0)
    people = Population.sample(60, group="women 21-40", seed=2)
    answers = 0.5 + 0.1 * (people.traits[:, :1, None] - 3) * np.array([[[1.0, -1.0]]])
    answers = answers + 0.02 * generator.normal(size=(60, 1, 2))
    reward = model_reward(
        fit_model(answers, people.traits), Population((Persona("new", (5, 3, 3, 3, 3)),)),
        ("a cat",), ("warm", "cold"),
    )  # fmt: skip
    warm, cold = reward([reward.prompts[0]] * 2, ["warm", "cold"])
    assert warm == pytest.approx(0.7, abs=0.03)
    assert cold == pytest.approx(0.3, abs=0.03)
