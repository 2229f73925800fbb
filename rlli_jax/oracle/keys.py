"""The key under which an answer is kept: everything that can change the answer, and nothing else.

A key is the SHA-256 of the canonical JSON of::

    {"judge": J, "persona": P, "picture": D, "request": text, "sample": n, "scale": S, "schema": 1}

J, P and S are SHA-256 digests of longer texts: the judge's name and parameters, the persona as the
language model reads it, and the scale (name, labels, ends) with the general set-up that introduces
it, and with the form of the question where that is not the usual one. D is the digest of the
decoded pixels, or of the description that a judge reads in their place, or null for a statement,
which shows nothing. So a renamed or losslessly re-encoded file, a
provider's name and a persona's name change nothing, while one pixel or one parameter does. How
patiently a judge asks (timeouts, retries, concurrency, API key) is no part of its identity. A
parameter that is null differs from one that is absent and from 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlli_jax.errors import InputError
from rlli_jax.judges import JSON, USUAL, Form, JudgeIdentity, Question, Scale
from rlli_jax.judges.prompting import form_digest
from rlli_jax.oracle.questions import Questions
from rlli_jax.personas import Persona
from rlli_jax.personas.prompts import general_setup, persona_text

SCHEMA = 1  # of the key; another meaning of any part needs another number

# Words of parameters that would be secrets; an identity is stored and shown, so it has none.
SECRETS = ("api_key", "apikey", "authorization", "password", "secret", "access_token")


def canonical(value: JSON) -> str:
    """The one JSON text of a value: sorted keys, no blanks, ASCII, 1.0 written as 1.

    Raises:
        InputError: the value is not JSON (another type, a key that is no text, NaN, infinity).
    """
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise InputError(f"{value!r} cannot be part of a key ({error}).") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InputError(f"{value!r} cannot be part of a key: its own keys must be text.")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a temperature of 1.0 and of 1 are one temperature
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"{value!r} cannot be part of a key: it is a {type(value).__name__}, which is not JSON."
    )


def sha256(text: str) -> str:
    """Hexadecimal SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def judge_text(identity: JudgeIdentity) -> str:
    """What a key knows of the judge, as canonical JSON.

    Raises:
        InputError: a parameter is not JSON, or is named like a secret.
    """
    _refuse_secrets(identity.name, identity.parameters)
    return canonical({"name": identity.name, "parameters": identity.parameters})


def _refuse_secrets(judge: str, value: JSON) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if str(key).lower().replace("-", "_") in SECRETS:
                raise InputError(
                    f"judge {judge!r}: the parameter {key!r} is a secret, and parameters are "
                    "stored and shown; give it in the environment only."
                )
            _refuse_secrets(judge, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_secrets(judge, item)


def scale_text(scale: Scale, form: Form = USUAL) -> str:
    """What a key knows of the scale, of the text that introduces it and of how the question is
    put, as canonical JSON."""
    known = {**asdict(scale), "general_setup": general_setup(scale)}
    if form != USUAL:  # else absent: earlier answers keep their keys
        known["form"] = {**form._asdict(), "template": form_digest(form)}
    return canonical(known)


@dataclass(frozen=True)
class Parts:
    """A question in the parts that make its key; digests in hexadecimal."""

    judge: str
    persona: str
    picture: str | None
    request: str
    sample: int
    scale: str

    def key(self) -> bytes:
        """SHA-256 (32 bytes) of the canonical JSON of the parts and the schema's number."""
        return hashlib.sha256(canonical({**vars(self), "schema": SCHEMA}).encode()).digest()


class Keys:
    """Keys of the questions to one judge."""

    def __init__(self, identity: JudgeIdentity) -> None:
        self._texts: dict[str, str] = {}  # digest -> text
        self.judge = self._digest(judge_text(identity))
        self._personas: dict[Persona, str] = {}
        self._scales: dict[tuple[Scale, Form], str] = {}

    def _digest(self, text: str) -> str:
        digest = sha256(text)
        self._texts[digest] = text
        return digest

    def _persona(self, persona: Persona) -> str:
        if persona not in self._personas:
            self._personas[persona] = self._digest(persona_text(persona))
        return self._personas[persona]

    def _scale(self, question: Question) -> str:
        put = question.scale, question.form
        if put not in self._scales:
            self._scales[put] = self._digest(scale_text(*put))
        return self._scales[put]

    def _shown(self, question: Question) -> str | None:
        """A digest of what there is to rate; the text of a description is kept."""
        if question.description is not None:
            return self._digest(question.description)
        return question.shown or None

    def take_texts(self) -> dict[str, str]:
        """Digest -> text, for each digest that came up since the last call."""
        texts, self._texts = self._texts, {}
        return texts

    def parts(self, question: Question) -> Parts:
        """The parts of a question's key. Raises InputError if its picture cannot be read."""
        return Parts(
            judge=self.judge,
            persona=self._persona(question.persona),
            picture=self._shown(question),
            request=question.request,
            sample=question.sample,
            scale=self._scale(question),
        )

    def of(self, questions: Sequence[Question]) -> list[bytes | None]:
        """Their keys; None for a question that shows nothing, whose answer nobody keeps."""
        if isinstance(questions, Questions):
            return self._of_table(questions)
        return [None if q.shown is None else self.parts(q).key() for q in questions]

    def _of_table(self, questions: Questions) -> list[bytes | None]:
        """The same, fast for tables of millions.

        The JSON begins alike for all questions to a persona, and this beginning is hashed once; it
        ends alike for all questions about a cell.
        """
        asked = questions[: len(questions.cells) * questions.samples]  # of the first persona
        ends = [None if question.shown is None else self._end(question) for question in asked]
        keys: list[bytes | None] = []
        for persona in questions.personas:
            start = self._start(persona)
            for end in ends:
                if end is None:
                    keys.append(None)
                    continue
                hashed = start()
                hashed.update(end)
                keys.append(hashed.digest())
        return keys

    def _start(self, persona: Persona) -> Callable[[], Any]:
        """Makes copies of the hash of the JSON up to the picture."""
        text = f'{{"judge":"{self.judge}","persona":"{self._persona(persona)}","picture":'
        return hashlib.sha256(text.encode()).copy

    def _end(self, question: Question) -> bytes:
        """The JSON from the picture on."""
        return (
            f'{canonical(self._shown(question))},"request":{canonical(question.request)},'
            f'"sample":{question.sample},"scale":"{self._scale(question)}",'
            f'"schema":{SCHEMA}}}'
        ).encode()
