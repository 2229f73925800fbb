"""The JSON schema of a study's file, by which editors complete and check YAML."""

from dataclasses import is_dataclass
from typing import Any

from pydantic import TypeAdapter

from rlli_jax.experiments.yaml_blocks import StudyBlock
from rlli_jax.learners import LEARNERS


def schema(config: type[StudyBlock]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of study, by the block of its file."""
    whole = config.model_json_schema()
    blocks = whole.get("$defs", {})
    # pydantic reads what a field means from its own class only, not from the one it derives from.
    for own in {part for kind in LEARNERS.values() for part in (kind.config, kind.hyperparams)}:
        for inherited in own.__mro__[1:]:
            if own.__name__ in blocks and is_dataclass(inherited):
                meant = TypeAdapter(inherited).json_schema().get("properties", {})
                for key, about in blocks[own.__name__]["properties"].items():
                    about.setdefault("description", meant.get(key, {}).get("description", ""))
    for block in (whole, *blocks.values()):
        for about in block.get("properties", {}).values():
            if "$ref" in about and "description" not in about:  # it is that of the block itself
                about["description"] = blocks[about["$ref"].rsplit("/", 1)[1]]["description"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}
