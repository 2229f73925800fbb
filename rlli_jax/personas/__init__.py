"""Who the users are: Big Five vectors, populations, published norms, and the prompt engineer.

A persona is one user's vector u_k = [o, c, e, a, n] (Eq. 1 of the paper), each trait on the 1-5
scale of the usual inventories.
"""

from rlli_jax.personas.norms import correlation_names, groups
from rlli_jax.personas.persona import TRAIT_NAMES, TRAITS, Persona, Wording
from rlli_jax.personas.population import Population
from rlli_jax.personas.prompts import general_setup, persona_text

__all__ = [
    "TRAITS",
    "TRAIT_NAMES",
    "Persona",
    "Population",
    "Wording",
    "correlation_names",
    "general_setup",
    "groups",
    "persona_text",
]
