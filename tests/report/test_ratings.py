"""The section on ratings of people says what rests on them, and warns where the judge hurts."""

import json

from rlli_jax.studies import render

FOUND = {
    "log": "served.csv",
    "prior": "judge",
    "people": 910,
    "ratings": 1820,
    "cells": 120,
    "rest_on_people": 90,
    "trust": 0.25,
    "gain": [-0.01, -0.02, -0.001],
    "warning": "The judge misleads: do <not> train on it.",
    "providers": {"ink & <oil>": [1820, 0.75, 0.5], "wax": [0, 0.25, 0.25]},
}


def test_what_rests_on_people_is_on_the_page_and_a_judge_that_hurts_at_its_top(run_dir):
    assert "What rests on people" not in render(run_dir).read_text(encoding="utf-8")
    (run_dir / "people.json").write_text(json.dumps(FOUND))
    page = " ".join(render(run_dir).read_text(encoding="utf-8").split())
    assert "1,820 ratings of 910 people, with the judge's word as the prior" in page
    assert "90 of 120 cells (75.0" in page
    assert "ink &amp; &lt;oil&gt;" in page
    assert '<td class="num">0.750</td><td class="num">0.500</td>' in page
    assert "by -0.0100" in page or "by −0.0100" in page
    warning = page.index("The judge misleads: do &lt;not&gt; train on it.")
    assert warning < page.index("<h2>Policies</h2>")
    alone = FOUND | {"prior": "none", "trust": None, "gain": None, "warning": ""}
    (run_dir / "people.json").write_text(json.dumps(alone))
    page = " ".join(render(run_dir).read_text(encoding="utf-8").split())
    assert "of 910 people alone, without the judge" in page
    assert "misleads" not in page
