"""The oracle: asks a judge everything once and lays the answers down as a table.

``build_questions`` says what there is to ask, ``ask`` asks it, and :class:`QoETable` holds the
answers with a validity mask::

    questions = build_questions(population, catalog, scale, samples=3)
    answers = ask(judge, questions)
    table = QoETable.from_answers(
        answers, population=population, catalog=catalog, scale=scale,
        judge=judge.identity, samples=3,
    )

A judge that costs something is asked through a store, which keeps every answer::

    store = open_store()
    print(plan(judge, questions, store).describe())
    answers = ask(judge, questions, store, budget=Budget(money=5.0), console=Console())
"""

from rlli_jax.oracle.asking import Asker, Plan, ask, plan
from rlli_jax.oracle.budget import Budget
from rlli_jax.oracle.questions import Questions, build_questions
from rlli_jax.oracle.store import Store, open_store

__all__ = [
    "Asker",
    "Budget",
    "Plan",
    "Questions",
    "Store",
    "ask",
    "build_questions",
    "open_store",
    "plan",
]
