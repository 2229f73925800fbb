import json

import pytest

from rlli_jax.experiments.schema import schema
from rlli_jax.studies import STUDIES


def blocks(kind):
    whole = schema(STUDIES[kind].part("config"))
    return {kind: whole, **whole["$defs"]}


@pytest.mark.parametrize("kind", STUDIES)
def test_every_key_of_a_study_says_what_it_means(kind):
    silent = [
        f"{name}.{key}"
        for name, block in blocks(kind).items()
        for key, about in block.get("properties", {}).items()
        if not about.get("description", "").endswith((".", ":"))
    ]
    assert silent == []


@pytest.mark.parametrize("kind", STUDIES)
def test_the_schema_is_json_and_refuses_unknown_keys(kind):
    whole = json.loads(json.dumps(schema(STUDIES[kind].part("config"))))
    assert whole["$schema"].endswith("2020-12/schema")
    assert whole["additionalProperties"] is False
    assert {"name", "seed"} <= set(whole["properties"])


def test_the_schema_is_printed(rlli):
    status, out, _ = rlli("schema", "--kind", "market")
    assert status == 0
    assert "market" in json.loads(out)["properties"]
