"""What there is to ask a judge."""

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import Question, Scale
from rlli_jax.personas import Population


def build_questions(
    population: Population, catalog: Catalog, scale: Scale, samples: int = 1
) -> list[Question]:
    """Every question of a table [K users, R requests, L providers, S samples], in C order.

    A pair without a picture is asked too, with ``picture=None``: the judge says whether it has an
    answer. Raises :class:`InputError` if ``samples`` is below 1.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; ask for at least one answer to each question.")
    cells = [
        (request, provider, catalog.picture(r, p))
        for r, request in enumerate(catalog.requests)
        for p, provider in enumerate(catalog.providers)
    ]
    return [
        Question(persona, request, provider, picture, scale, sample)
        for persona in population.personas
        for request, provider, picture in cells
        for sample in range(samples)
    ]
