"""Whole examinations of judges whose faults are known: what is asked, found, and left unasked."""

from collections.abc import Sequence

import numpy as np
import pytest

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, Question, Rated, named_scale
from rlli_jax.judges.examination import CHECKS, design
from rlli_jax.judges.examination.examine import Setting, examine, label_mass, other_tokens
from rlli_jax.judges.prompting import ORDERS, messages
from rlli_jax.personas import persona_text
from rlli_jax.personas.norms import load_data, pooled_norm
from rlli_jax.personas.psychometrics import first_half
from rlli_jax.personas.questionnaire import ipip50, score

SCALE = named_scale("adjectives")
KEY = ipip50()
PLACE = {item["text"]: i for i, item in enumerate(load_data("ipip50_items")["items"])}


def plate(value: int) -> Picture:
    pixels = np.full((8, 8, 3), value, np.uint8)
    pixels[: value // 32] = 255 - value
    return Picture(f"plate {value}", lambda: pixels)


@pytest.fixture(scope="module")
def catalog():
    pictures = {
        (request, provider): plate(20 * (3 * r + p) + 10)
        for r, request in enumerate(("a cat", "a dog"))
        for p, provider in enumerate(("ink", "oil", "wax"))
    }
    return Catalog(("ink", "oil", "wax"), ("a cat", "a dog"), pictures)


def setting(catalog, **changes):
    options = {"in_words": True, "draws": False, "personas": 8, "require": ("sight", "scale")}
    return Setting(catalog, SCALE, **{**options, **changes})


class Fake:
    """A judge with some parts of a good one."""

    def __init__(self, *, sees=True, is_persona=True, follows_order=False, constant=False):
        self.sees, self.is_persona, self.follows_order = sees, is_persona, follows_order
        self.constant = constant
        self.asked: list[Question] = []

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += questions
        return [self.answer(question) for question in questions]

    def answer(self, q: Question) -> Answer:
        if self.constant:
            return Rated(3.0)
        z = (np.array(q.persona.known_traits) - pooled_norm().mean) / pooled_norm().sd
        z = z if self.is_persona else np.zeros(5)
        if q.form.asks == "statement":
            item = PLACE[q.request]
            level = z[KEY.traits[item]] * (-1 if KEY.reverse[item] else 1)
            return Rated(float(np.clip(3 + 0.8 * level, 1, 5)))
        look = q.picture.pixels.mean() / 255 if self.sees else 0.5
        taste = float(np.sin(7 * look + np.arange(5)) @ z) / 5
        rating = 0.3 + 0.4 * look + 0.1 * taste
        if self.follows_order:
            rating = 0.05 + 0.9 * (q.form.order == ORDERS[1]) + 0.01 * rating
        return Rated(float(np.clip(q.scale.low + (q.scale.high - q.scale.low) * rating, 1, 5)))


def outcomes(findings):
    return {finding.check: finding.outcome for finding in findings}


def test_a_good_judge_passes_and_what_cannot_be_checked_is_said(catalog):
    judge = Fake()
    found = outcomes(examine(judge, setting(catalog)))
    assert tuple(found) == CHECKS
    assert {found[c] for c in ("sight", "scale", "order", "persona", "steering")} == {"pass"}
    assert {found[c] for c in ("quality", "prediction")} == {"not applicable"}
    grid = 10 * 6
    assert len(judge.asked) == 6 + 4 * grid + 6 + 8 * 50  # the second scale is tried out first


def test_a_blind_judge_is_refused_after_six_questions(catalog):
    judge = Fake(sees=False)
    findings = examine(judge, setting(catalog))
    assert outcomes(findings)["sight"] == "fail"
    assert len(judge.asked) == 6
    assert len({question.picture.digest for question in judge.asked}) == 3
    assert len({question.request for question in judge.asked}) == 1
    assert all("not examined, because sight failed" in f.says for f in findings[2:])


@pytest.mark.parametrize(
    ("judge", "wrong"),
    [
        (Fake(is_persona=False), {"persona": "fail", "steering": "fail"}),
        (Fake(follows_order=True), {"order": "fail"}),
        (Fake(constant=True), {"sight": "fail", "order": "fail", "persona": "fail"}),
    ],
    ids=["ignores the persona", "follows the first label", "constant"],
)
def test_faults_are_found(catalog, judge, wrong):
    found = outcomes(examine(judge, setting(catalog, require=())))
    assert {check: found[check] for check in wrong} == wrong


def test_a_judge_that_draws_is_asked_repeatedly_before_it_is_said_to_see(catalog):
    random = np.random.default_rng(0)

    def noisy(questions):
        return [Rated(float(random.uniform(1, 5))) for _ in questions]

    found = examine(noisy, setting(catalog, draws=True))
    assert found[0].outcome == "fail"
    assert "p" in found[0].measures


def test_little_mass_stops_early_and_names_what_helps(catalog):
    raw = '{"text": "The", "probabilities": {"bad": 0.01, "good": 0.006}, "others": {"The": 0.4}}'

    def chatty(questions):
        return [Invalid("only 0.016 ...", raw) for _ in questions]

    sight, scale, *rest = examine(chatty, setting(catalog))
    assert sight.outcome == "not applicable"
    assert scale.outcome == "fail"
    assert scale.estimate == pytest.approx(0.016)
    for words in (
        "'The' (0.4)",
        "judge.scale: 1-5",
        'judge.prefill: "Rating: "',
        "template_kwargs",
    ):
        assert words in scale.says
    assert {finding.outcome for finding in rest} == {"not applicable"}
    again = examine(chatty, setting(catalog, prefill="Rating:"))[1]
    assert "judge.prefill" not in again.says  # it is set already


def test_answers_in_text_that_are_no_labels_are_named():
    answers = [Invalid("not one label", "I would say"), Rated(3.0, raw="fair")]
    assert other_tokens(answers) == {"I would say": 0.5}
    assert [label_mass(answer) for answer in answers] == [0.0, 1.0]


def test_a_server_that_is_gone_is_one_sentence(catalog):
    def gone(questions):
        return [Failed("no answer from the server")] * len(questions)

    with pytest.raises(InputError, match=r"6 of 6 questions were not answered \(no answer"):
        examine(gone, setting(catalog))


def test_a_scale_that_a_judge_does_not_keep_to_is_left_out(catalog):
    judge = Fake()

    def picky(questions):
        return [
            Invalid("no digit") if q.scale.name == "1-5" and q.form.asks == "picture" else a
            for q, a in zip(questions, judge(questions), strict=True)
        ]

    found = {finding.check: finding for finding in examine(picky, setting(catalog))}
    assert found["order"].outcome == "pass"
    assert "scale 1-5" not in found["order"].measures["wordings"]


def test_quality_and_prediction_are_checked_where_people_are_known(catalog):
    human = {pair: float(picture.pixels.mean()) for pair, picture in catalog.pictures.items()}
    answers = np.random.default_rng(0).integers(1, 6, (8, 50)).astype(float)
    found = outcomes(examine(Fake(), setting(catalog, human=human, answers=answers)))
    assert found["quality"] == "pass"
    assert found["prediction"] == "fail"  # of answers by chance nothing is known


def test_a_catalog_with_one_picture_a_request_is_refused_before_anything_is_asked():
    catalog = Catalog(("ink",), ("a cat",), {("a cat", "ink"): plate(30)})
    judge = Fake()
    with pytest.raises(InputError, match="no request has two pictures"):
        examine(judge, setting(catalog))
    found = examine(judge, setting(catalog, require=()))
    assert {finding.outcome for finding in found} == {"not applicable"}
    assert judge.asked == []


def test_readers_are_shown_words_and_a_blank_in_words(catalog):
    judge = Fake(constant=True)
    examine(judge, setting(catalog, sees="description"))
    words = [question.description for question in judge.asked[:3]]
    assert len(set(words)) == 3
    assert words[2] == design.BLANK
    assert not any("ink" in str(messages(question)) for question in judge.asked)


def test_poles_are_average_but_for_one_trait():
    people = design.poles("brief")
    assert [p.name for p in people[:3]] == ["low O", "high O", "low C"]
    norm = pooled_norm().mean
    for i, person in enumerate(people):
        others = np.arange(5) != i // 2
        np.testing.assert_allclose(np.array(person.known_traits)[others], norm[others])


def test_wordings_of_personas_are_compared(catalog):
    """A judge that understands biographies alone."""
    from rich.console import Console

    from rlli_jax.experiments.examination import compare_wordings

    good, deaf = Fake(), Fake(is_persona=False)

    def ask(questions):
        judge = good if questions[0].persona.wording == "biography" else deaf
        return judge(questions)

    found = compare_wordings(ask, setting(catalog), Console(quiet=True))
    assert {wording: findings[0].outcome for wording, findings in found.findings.items()} == {
        "full": "fail",
        "brief": "fail",
        "biography": "pass",
        "answers": "not applicable",
    }


def test_who_is_told_half_of_somebodys_answers_is_told_no_other():
    """By traits or by the answers themselves: the other half may be anything."""
    key = ipip50()
    answers = np.random.default_rng(0).integers(1, 6, (3, 50)).astype(float)
    changed = np.where(first_half(key), answers, 6 - answers)
    for wording in ("full", "answers"):
        told = design.halves(answers, wording)
        assert told == design.halves(changed, wording)
        assert len({persona_text(person) for person in told}) == 3
    said = dict(told[0].answers)
    assert len(said) == 25
    first = {item: answers[0, i] for i, item in enumerate(key.items) if first_half(key)[i]}
    assert list(said.values()) == list(first.values())


def test_poles_in_answers_score_to_their_traits():
    key = ipip50()
    for person in design.poles("answers"):
        said = np.array([answer for _, answer in person.answers], float)[None]
        np.testing.assert_allclose(score(said, key)[0], np.round(person.known_traits), atol=1e-9)
