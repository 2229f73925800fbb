"""Judges that only read: descriptions in place of pictures, statements, and what they refuse."""

import json

import pytest
import tiny_llama
import tiny_llava

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Form, Invalid, JudgeIdentity, Question, Rated, named_scale
from rlli_jax.judges.completions import Completions
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.judges.prompting import ORDERS, PAIR_SCALE, messages, pair_question
from rlli_jax.judges.transformers import TransformersJudge
from rlli_jax.oracle.keys import Keys
from rlli_jax.oracle.questions import build_questions
from rlli_jax.personas import Persona, Population

SCALE = named_scale("1-5")
PERSONAS = [Persona(f"user {i}", (1.0 + i, 3.0, 5.0 - i, 3.0, 2.0)) for i in range(3)]
DARK, BRIGHT = "It is very dark and shows no face.", "It is very bright and shows one face."
BOTH = (DARK, BRIGHT), (BRIGHT, DARK)


def described(persona=0, description=DARK, form=None, scale=SCALE):
    question = Question(PERSONAS[persona], "a cat", "p0", None, scale, 0, description)
    return question if form is None else question._replace(form=form)


def statement(persona=0, item="I am the life of the party.", order=None):
    form = Form("statement", order)
    return Question(PERSONAS[persona], item, "", None, SCALE, form=form)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama.build(tmp_path_factory.mktemp("models") / "tiny-random-llama")


def reader(llama, **options):
    return TransformersJudge(llama, sees="description", device="cpu", min_valid_mass=0.0, **options)


def test_a_text_model_rates_descriptions_and_statements(llama):
    asked = [described(p, d) for p in range(3) for d in (DARK, BRIGHT)]
    asked += [statement(p, item) for p in range(2) for item in ("I am quiet.", "I am loud.")]
    answers = reader(llama, prefill="Rating:").rate(asked)
    assert all(isinstance(answer, Rated) for answer in answers)
    assert len({answer.rating for answer in answers}) == len(asked)
    assert all(answer.usage.prompt_tokens > 50 for answer in answers)


def test_a_shared_prefix_gives_what_whole_prompts_give(llama):
    asked = [described(p) for p in range(3)] + [statement(0, f"I am {i}.") for i in range(3)]
    shared = reader(llama, prefill="Rating:", both_orders=True)
    together = shared.rate(asked)
    assert shared._scorer.shares
    whole = reader(llama, prefill="Rating:", both_orders=True)
    whole._scorer.shares = False
    for one, other in zip(together, whole.rate(asked), strict=True):
        assert one.rating == pytest.approx(other.rating, abs=1e-4)
        assert one.valid_mass == pytest.approx(other.valid_mass, abs=1e-4)


def test_both_orders_are_the_mean_of_each(llama):
    judge, both = reader(llama), reader(llama, both_orders=True)
    each = [judge.rate([described(form=Form(order=order))])[0].rating for order in ORDERS]
    assert each[0] != each[1]
    (mean,) = both.rate([described()])
    assert mean.rating == pytest.approx(sum(each) / 2)


def test_a_pair_is_asked_for_what_it_shows_in_which_order_and_of_whom(llama):
    pairs = [pair_question(PERSONAS[p], "a cat", *shown) for p in (0, 1) for shown in BOTH]
    keys = Keys(JudgeIdentity("j"))
    others = [pair_question(PERSONAS[0], "a dog", DARK, BRIGHT), described()]
    others[1] = others[1]._replace(description=pairs[0].description, scale=PAIR_SCALE)
    assert len(set(keys.of([*pairs, *others]))) == len(pairs) + len(others)
    assert any(DARK in text and BRIGHT in text for text in keys.take_texts().values())
    (text,) = (part["text"] for part in messages(pairs[0])[0]["content"])
    assert text.index(DARK) < text.index(BRIGHT) < text.index("a cat")
    answers = reader(llama).rate(pairs)
    assert len({answer.rating for answer in answers}) == len(pairs)
    for answer in answers:
        said = json.loads(answer.raw)["probabilities"]
        first = said["first"] / (said["first"] + said["second"])
        assert answer.rating == pytest.approx(first, rel=1e-4)


def test_little_mass_on_the_labels_names_what_is_likelier(llama):
    judge = TransformersJudge(llama, sees="description", device="cpu", min_valid_mass=0.99)
    (answer,) = judge.rate([described(scale=named_scale("adjectives"))])
    assert isinstance(answer, Invalid)
    others = json.loads(answer.raw)["others"]
    assert 1 <= len(others) <= 8
    assert all(0 < p < 1 for p in others.values())


def test_prefill_and_descriptions_are_in_the_identity(llama):
    plain, begun = reader(llama), reader(llama, prefill="Rating:")
    assert plain.identity.parameters["sees"] == "description"
    assert "prefill" not in plain.identity.parameters
    assert begun.identity.parameters["prefill"] == "Rating:"


def test_a_picture_is_no_description(llama, question):
    (answer,) = reader(llama).rate([question()])
    assert answer == Invalid("this judge reads descriptions, and the question has none")


def test_models_that_cannot_do_what_is_asked_of_them_are_refused_unasked(llama, tmp_path):
    with pytest.raises(InputError, match=r"takes text only.*judge\.sees to description"):
        _ = TransformersJudge(llama).identity
    llava = tiny_llava.build(tmp_path / "llava")
    with pytest.raises(InputError, match=r"takes pictures.*judge\.sees to picture"):
        _ = TransformersJudge(llava, sees="description").identity
    with pytest.raises(InputError, match="no model file"):
        _ = TransformersJudge(tmp_path / "none.gguf", sees="description").identity
    refusing = tiny_llama.build(
        tmp_path / "refusing", "{{ raise_exception('only system messages are supported') }}"
    )
    with pytest.raises(InputError, match=r"template of the model .* only system messages"):
        reader(refusing).expected_usage(described())


def test_what_is_read_is_part_of_the_key_and_providers_are_not():
    def key(**changes):

        (made,) = Keys(JudgeIdentity("j")).of([described()._replace(**changes)])
        return made

    assert key(description=BRIGHT) != key()  # two captions are two questions
    assert key(provider="another") == key()
    forms = [Form(), Form(order=ORDERS[1]), Form(wording="paraphrase"), Form("statement")]
    assert len({key(form=form) for form in forms}) == len(forms)
    judge = Keys(JudgeIdentity("j"))
    parts = judge.parts(described())
    assert DARK in judge.take_texts().values()
    assert parts.picture is not None


def test_tables_of_descriptions_have_the_keys_of_their_questions(tmp_path):
    manifest = tmp_path / "m.csv"
    rows = [f"{p},{r},{p}{r}.png,a {r} by hand {i}" for i, p in enumerate("AB") for r in "xyz"]
    manifest.write_text("\n".join(["provider,request,image,caption", *rows]))
    catalog = Catalog.from_manifest(manifest, pictures=False)
    questions = build_questions(Population(tuple(PERSONAS)), catalog, SCALE, described=True)
    keys = Keys(JudgeIdentity("j"))
    table = keys.of(questions)
    assert len(set(table)) == 3 * 6
    assert [keys.parts(question).key() for question in questions] == table
    assert list(questions)[7] == questions[7]


def test_the_studio_in_words_names_no_provider_and_tells_its_pictures_apart():
    catalog = Catalog.studio()
    words = [catalog.description(0, p) for p in range(4)]
    assert len(set(words)) >= 3
    assert "black and white" in words[3]
    assert not any(provider in text for text in words for provider in catalog.providers)


def test_servers_get_text_as_one_string_and_the_beginning_of_the_answer():
    completions = Completions("m", scoring="logprobs", sees="description", prefill="Rating: ")
    (body,) = completions.bodies(described())
    user, assistant = body["messages"]
    assert isinstance(user["content"], str)
    assert DARK in user["content"]
    assert assistant == {"role": "assistant", "content": "Rating: "}
    assert body["continue_final_message"] is True
    assert [json.loads(p) for p in completions.payloads(described())] == [body]
    assert completions.parameters()["prefill"] == "Rating: "
    assert completions.parameters()["sees"] == "description"
    plain = Completions("m", scoring="logprobs")
    assert not {"prefill", "sees"} & plain.parameters().keys()
    assert len(plain.bodies(statement())) == 1


def test_captions_come_from_the_manifest_and_may_stand_without_pictures(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("provider,request,image,caption\nA,cat,a.png,a grey cat\nB,cat,b.png,\n")
    catalog = Catalog.from_manifest(manifest, pictures=False)
    assert catalog.description(0, 0) == "a grey cat"
    assert catalog.description(0, 1) is None
    questions = build_questions(Population(tuple(PERSONAS)), catalog, SCALE, described=True)
    assert [question.shown is None for question in questions[:2]] == [False, True]
    manifest.write_text("provider,request,image\nA,cat,a.png\n")
    catalog = Catalog.from_manifest(manifest, pictures=False)
    with pytest.raises(InputError, match="neither pictures nor captions"):
        build_questions(Population(tuple(PERSONAS)), catalog, SCALE, described=True)
    manifest.write_text(f"provider,request,image,caption\nA,cat,a.png,{'x' * 10_000}\n")
    with pytest.raises(InputError, match=r"row 1 .*caption has 10,000 characters"):
        Catalog.from_manifest(manifest, pictures=False)


@pytest.mark.parametrize(
    ("lengths", "fault"),
    [
        ((20, 22, 24), ""),
        ((20, 27, 29), "closes the message"),
        ((20, 20, 20), "closes the message"),
        ((None, None, None), "counts no tokens"),
    ],
    ids=["goes on", "starts a new message", "drops it", "does not count"],
)
def test_a_probe_tells_whether_a_server_goes_on_from_a_prefill(
    server, chat_completion, lengths, fault
):
    """llama.cpp goes on; others close the message, by so many tokens."""

    def respond(body, n):
        said = body["messages"][-1]["content"] if len(body["messages"]) > 1 else ""
        reply = chat_completion("Rating: 4")
        reply["usage"] = {"prompt_tokens": lengths[said.count("Rating:")], "completion_tokens": 2}
        return reply

    server.respond = respond
    judge = OpenAIJudge(
        Completions("m", scoring="text", sees="description", prefill="Rating: "),
        base_url=server.url,
    )
    (answer,) = judge.rate([described()])
    if fault:
        assert isinstance(answer, Failed)
        assert fault in answer.reason
        assert len(server.requests) <= 3
    else:
        assert answer.rating == 4  # which the server gave with its beginning
        assert len(server.requests) == 4
