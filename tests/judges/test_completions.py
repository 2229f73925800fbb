"""The chat completions protocol: what is sent is the same however it is put together."""

import json

from rlli_jax.judges.completions import Completions


def test_payloads_are_the_bodies(question):
    for completions in (Completions("m", "text"), Completions("m", "logprobs", both_orders=True)):
        payloads = completions.payloads(question())
        assert [json.loads(payload) for payload in payloads] == completions.bodies(question())
