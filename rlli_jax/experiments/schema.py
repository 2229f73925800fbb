"""The JSON schema of a study's file, by which editors complete and check YAML."""

from typing import Any

from rlli_jax.experiments.config import Block, StudyConfig
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.teaching.config import TeachingStudy

SCHEMAS: dict[str, type[Block]] = {
    "selection": StudyConfig,
    "market": MarketConfig,
    "teaching": TeachingStudy,
}


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of study, a key of :data:`SCHEMAS`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **SCHEMAS[kind].model_json_schema(),
    }
