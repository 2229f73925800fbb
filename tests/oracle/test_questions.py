"""Building questions and asking them."""

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import JudgeIdentity, Question, Rated, named_scale
from rlli_jax.oracle import ask, build_questions
from rlli_jax.personas import Persona, Population

SCALE = named_scale("1-5")
POPULATION = Population(tuple(Persona(name, (3.0,) * 5) for name in ("ann", "ben")))


class TinyCatalog:
    requests = ("r0", "r1", "r2")
    providers = ("p0", "p1")

    def picture(self, request, provider):
        return None if (request, provider) == (1, 0) else f"picture {request} {provider}"


class CountingJudge:
    identity = JudgeIdentity("counting")

    def __init__(self):
        self.calls = []

    def rate(self, questions):
        self.calls.append(list(questions))
        return [Rated(float(i)) for i, _ in enumerate(questions)]


def test_questions_are_in_the_order_of_the_table():
    questions = build_questions(POPULATION, TinyCatalog(), SCALE, samples=4)
    grid = np.empty(len(questions), object)
    grid[:] = questions
    grid = grid.reshape(2, 3, 2, 4)
    for (k, r, p, s), question in np.ndenumerate(grid):
        picture = TinyCatalog().picture(r, p)
        assert question == Question(
            POPULATION.personas[k], f"r{r}", f"p{p}", picture, SCALE, sample=s
        )
        assert questions[((k * 3 + r) * 2 + p) * 4 + s] == question
    assert questions[-1] == list(questions)[-1]
    assert questions[5:9] == list(questions)[5:9]
    with pytest.raises(IndexError):
        questions[len(questions)]


def test_at_least_one_sample():
    with pytest.raises(InputError, match="samples is 0"):
        build_questions(POPULATION, TinyCatalog(), SCALE, samples=0)


def test_equal_questions_are_asked_once_and_samples_are_not_collapsed():
    questions = build_questions(POPULATION, TinyCatalog(), SCALE, samples=2)
    doubled = [*questions, *reversed(questions)]
    judge = CountingJudge()
    answers = ask(judge, doubled)
    assert judge.calls == [list(questions)]
    assert answers[: len(questions)] == [Rated(float(i)) for i in range(len(questions))]
    assert answers[len(questions) :] == answers[: len(questions)][::-1]


def test_a_judge_that_swallows_a_question_is_found_out():
    judge = CountingJudge()
    judge.rate = lambda questions: [Rated(1.0)]
    with pytest.raises(RuntimeError, match="1 answers to 12 questions"):
        ask(judge, build_questions(POPULATION, TinyCatalog(), SCALE))
