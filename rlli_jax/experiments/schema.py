"""The JSON schema of a study's file, by which editors complete and check YAML."""

from typing import Any

from pydantic import TypeAdapter

from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.teaching.config import TeachingStudy
from rlli_jax.experiments.yaml_blocks import Block
from rlli_jax.learners.sac import D2SACConfig, SACConfig

SCHEMAS: dict[str, type[Block]] = {
    "selection": StudyConfig,
    "market": MarketConfig,
    "teaching": TeachingStudy,
}


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of study, a key of :data:`SCHEMAS`."""
    whole = SCHEMAS[kind].model_json_schema()
    blocks = whole.get("$defs", {})
    # pydantic reads what a field means from its own class only, not from the one it derives from.
    for own, inherited in ((D2SACConfig, SACConfig),):
        if own.__name__ in blocks:
            meant = TypeAdapter(inherited).json_schema()["properties"]
            for key, about in blocks[own.__name__]["properties"].items():
                about.setdefault("description", meant.get(key, {}).get("description", ""))
    for block in (whole, *blocks.values()):
        for about in block.get("properties", {}).values():
            if "$ref" in about and "description" not in about:  # it is that of the block itself
                about["description"] = blocks[about["$ref"].rsplit("/", 1)[1]]["description"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}
