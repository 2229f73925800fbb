"""From probabilities and texts to ratings, worked out by hand."""

import json
from itertools import pairwise

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated, Scale, Usage, named_scale, scale_of
from rlli_jax.judges.scoring import (
    LabelTokens,
    averaged,
    expected_answer,
    listed_probabilities,
    text_answer,
)

ADJECTIVES = named_scale("adjectives")
TEN = named_scale("1-10")


def test_expectation_over_the_valid_mass():
    p = np.array([0.0, 0.1, 0.0, 0.2, 0.3])
    answer = expected_answer(ADJECTIVES, p, 0.5, "good", Usage(10, 1))
    assert isinstance(answer, Rated)
    assert answer.rating == pytest.approx((0.1 * 2 + 0.2 * 4 + 0.3 * 5) / 0.6)
    assert answer.valid_mass == pytest.approx(0.6)
    assert answer.usage == Usage(10, 1)
    assert json.loads(answer.raw) == {
        "text": "good",
        "probabilities": {"bad": 0.0, "poor": 0.1, "fair": 0.0, "good": 0.2, "excellent": 0.3},
    }


def test_too_little_valid_mass_is_invalid_and_keeps_the_text():
    answer = expected_answer(ADJECTIVES, np.full(5, 0.05), 0.5, "As an AI", None)
    assert isinstance(answer, Invalid)
    assert answer.reason.startswith("only 0.25 of the probability")
    assert json.loads(answer.raw)["text"] == "As an AI"


def test_no_mass_at_all_is_invalid_even_without_a_threshold():
    assert isinstance(expected_answer(ADJECTIVES, np.zeros(5), 0.0, "", None), Invalid)


@pytest.mark.parametrize("p", [np.nan, 0.3, -0.1])
def test_what_is_no_probability_is_invalid(p):
    answer = expected_answer(ADJECTIVES, np.full(5, p), 0.0, "x", None)
    assert isinstance(answer, Invalid)
    assert answer.raw == "x"


@pytest.mark.parametrize("text", ["good", "Good", " GOOD.\n", "good."])
def test_text_of_one_label(text):
    assert text_answer(ADJECTIVES, text, None) == Rated(4.0, raw=text)


def test_labels_of_ones_own_in_any_case_and_with_full_stops():
    scale = scale_of(["Sehr schlecht", "Geht so.", "Sehr GUT"])
    for text, rating in (("sehr gut", 3.0), ("GEHT SO.", 2.0), ("Sehr Schlecht.", 1.0)):
        assert text_answer(scale, text, None) == Rated(rating, raw=text)
    words = {"sehr": 0.5, "Geht": 0.5}, {" gut": 0.8, " schlecht": 0.2}
    listed = listed_probabilities(scale, listing(("sehr", words[0]), (" gut", words[1])))
    expected = {"Sehr GUT": 0.4, "Sehr schlecht": 0.1, "Geht so.": 0.5}
    assert labelled(scale, listed.probabilities) == expected
    with pytest.raises(InputError, match="all different, capitals aside"):
        Scale("twins", ("good", "Good "), 1, 2)


def test_decimals_that_begin_one_another():
    scale = scale_of(["1", "1.5", "2"])
    tokens = LabelTokens.of(scale, lambda text: list(text.encode()))
    tables = {c: np.log(np.full(len(tokens.vocabulary), 1e-9)) for c in tokens.contexts}

    def say(context, text, p):
        token = text.encode()[0]
        tables[tuple(context.encode())][tokens.vocabulary.index(token)] = np.log(p)

    say("", "1", 0.6)
    say("", "2", 0.4)
    say("1", ".", 0.5)
    say("1.", "5", 0.5)  # "1." and an end is 1
    np.testing.assert_allclose(tokens.probabilities(tables), [0.45, 0.15, 0.4], atol=1e-6)
    positions = listing(("1", {"1": 0.6, "2": 0.4}), (".", {".": 0.5, "": 0.5}), ("5", {"5": 0.5}))
    listed = listed_probabilities(scale, positions)
    np.testing.assert_allclose(listed.probabilities, [0.45, 0.15, 0.4])


@pytest.mark.parametrize("text", ["", "goo", "very good", "good or fair", "4", "good!", "good.."])
def test_other_text_is_invalid(text):
    answer = text_answer(ADJECTIVES, text, None)
    assert answer == Invalid("the answer is not one label of the scale", text)


@pytest.mark.parametrize(
    "text", ["I weigh 3 against 4, so 4", "4/5", "4 out of 5", "4.5", "6", "-4"]
)
def test_no_digit_is_fished_out_of_a_sentence(text):
    assert isinstance(text_answer(named_scale("1-5"), text, None), Invalid)
    assert text_answer(named_scale("1-5"), "4", None) == Rated(4.0, raw="4")


def test_average_over_label_orders():
    one, two = Rated(2.0, 0.8, "a", Usage(10, 1, 0.5, 1.0)), Rated(3.0, 1.0, "b", Usage(12, 1))
    mean = averaged([one, two])
    assert mean == Rated(2.5, 0.9, "a\nb")
    assert mean.usage == Usage(22, 2, None, None)
    assert averaged([one]) is one
    assert averaged([one, Invalid("no", "c")]) == Invalid("no", "a\nc")
    assert averaged([Invalid("no", "c"), Failed("late")]) == Failed("late")


# Tokens of an invented tokenizer: one for each of these texts.
PIECES = ["1", "0", "2", "3", "4", "5", "6", "7", "8", "9", " "]


def spell(text):
    return [PIECES.index(letter) for letter in text] if set(text) <= set(PIECES) else None


def test_a_label_of_two_tokens_and_the_one_that_begins_it():
    tokens = LabelTokens.of(TEN, spell)
    one, zero, space = (PIECES.index(p) for p in "10 ")
    assert set(tokens.contexts) == {(), (one,), (space,), (space, one)}
    assert set(tokens.paths) == {(one,), (space, one)}
    tables = {c: np.full(len(tokens.vocabulary), -np.inf) for c in tokens.contexts}

    def say(context, token, p):
        tables[context][tokens.vocabulary.index(token)] = np.log(p)

    say((), one, 0.5)
    say((), PIECES.index("7"), 0.2)
    say((), space, 0.1)
    say((one,), zero, 0.6)
    say((one,), PIECES.index("5"), 0.1)  # "15" is no label; the rest ends the answer
    say((space,), PIECES.index("7"), 1.0)
    expected = np.zeros(10)
    expected[9] = 0.5 * 0.6
    expected[0] = 0.5 * 0.4  # all but the going on to 10, as 7 counts whatever follows it
    expected[6] = 0.2 + 0.1
    np.testing.assert_allclose(tokens.probabilities(tables), expected, atol=1e-12)


def test_probabilities_of_labels_are_those_of_all_answers():
    """Against the sum over every answer that a random model can give."""
    rng = np.random.default_rng(0)
    scale = Scale("letters", ("a", "ab", "abb", "b"), 1, 4)
    letters = ["a", "b", "<end>"]
    contexts = [c for n in range(5) for c in np.ndindex(*(2,) * n)]
    models = {c: rng.dirichlet(np.ones(3)) for c in contexts}
    tokens = LabelTokens.of(
        scale,
        lambda text: [letters.index(t) for t in text] if set(text) <= {"a", "b"} else None,
    )
    tables = {c: np.log(models[c]) for c in tokens.contexts}
    assert tokens.vocabulary == (0, 1)

    def walk(word, p):
        yield word, p * models[word][2]
        if len(word) < 4:
            for letter in (0, 1):
                yield from walk((*word, letter), p * models[word][letter])
        else:
            yield (*word, None), p * (1 - models[word][2])

    # The longest label with which an answer begins is the one that it means.
    spelt = {(0,): 0, (0, 1): 1, (0, 1, 1): 2, (1,): 3}
    expected = np.zeros(4)
    for word, p in walk((), 1.0):
        meant = [label for ids, label in spelt.items() if word[: len(ids)] == ids]
        if meant:
            expected[meant[-1]] += p
    np.testing.assert_allclose(tokens.probabilities(tables), expected, rtol=1e-12)


def test_spellings_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InputError, match="spells 'poor' and 'bad' of the scale 'adjectives' alike"):
        LabelTokens.of(ADJECTIVES, lambda text: [0])
    with pytest.raises(InputError, match="cannot spell 'bad'"):
        LabelTokens.of(ADJECTIVES, lambda text: None)


# A model whose answers on the scale 1-10 have the mean 4.0, and writes "10" in two tokens.
FOUR = {"1": 0.25, "2": 0.1, "3": 0.05, "4": 0.3, "5": 0.1, "7": 0.1, "8": 0.0, "10": 0.1}


def test_the_mean_of_four_on_the_scale():
    """What the tests below rest on."""
    assert sum(FOUR.values()) == pytest.approx(1.0)
    assert sum(int(label) * p for label, p in FOUR.items()) == pytest.approx(4.0)


@pytest.mark.parametrize("more", [0.0, 0.1, 0.9, 1.0])
def test_a_true_four_reads_four_however_often_the_model_goes_on_after_a_digit(more):
    """``more``: how often something follows the digit that makes no other label, as in "1/10"."""
    tokens = LabelTokens.of(TEN, spell)
    tables = {c: np.full(len(tokens.vocabulary), -np.inf) for c in tokens.contexts}
    one, zero, five = map(PIECES.index, "105")
    first = {**FOUR, "1": FOUR["1"] + FOUR["10"]}
    del first["10"]
    with np.errstate(divide="ignore"):
        for label, p in first.items():
            tables[()][tokens.vocabulary.index(PIECES.index(label))] = np.log(p)
        behind = tables[one,]
        behind[tokens.vocabulary.index(zero)] = np.log(FOUR["10"] / first["1"])
        behind[tokens.vocabulary.index(five)] = np.log(more * FOUR["1"] / first["1"])
    p = tokens.probabilities(tables)
    answer = expected_answer(TEN, p, 0.5, "", None)
    assert answer.rating == pytest.approx(4.0, abs=1e-12)
    assert answer.valid_mass == pytest.approx(1.0)


@pytest.mark.parametrize("more", [0.0, 0.1, 0.9, 1.0])
def test_a_true_four_reads_four_from_lists_behind_the_digit(more):
    first = {**FOUR, "1": FOUR["1"] + FOUR["10"]}
    del first["10"], first["8"]
    behind = {"0": FOUR["10"] / first["1"]}
    behind |= {token: p * FOUR["1"] / first["1"] for token, p in (("/", more), ("<end>", 1 - more))}
    positions = listing(
        ("1", first), (max(behind, key=behind.get), {k: p for k, p in behind.items() if p})
    )
    listed = listed_probabilities(TEN, positions)
    assert listed.unclear(TEN) == ""
    answer = expected_answer(TEN, listed.probabilities, 0.5, "", None)
    assert answer.rating == pytest.approx(4.0, abs=1e-9)


def test_a_true_four_reads_four_where_ten_is_one_token():
    positions = listing(("4", {label: p for label, p in FOUR.items() if p}))
    listed = listed_probabilities(TEN, positions)
    answer = expected_answer(TEN, listed.probabilities, 0.5, "", None)
    assert answer.rating == pytest.approx(4.0, abs=1e-9)
    assert listed.unclear(TEN) == ""


def test_one_or_ten_is_not_guessed_where_the_lists_do_not_tell():
    positions = listing(("4", {"1": 0.3, "4": 0.6, "5": 0.1}))
    reason = listed_probabilities(TEN, positions).unclear(TEN)
    assert reason.startswith(
        "the server's lists leave open whether 0.3 of the probability is on '1' or '10'"
    )
    little = listing(("4", {"1": 0.01, "4": 0.9, "5": 0.09}))
    listed = listed_probabilities(TEN, little)
    assert listed.unclear(TEN) == ""
    assert labelled(TEN, listed.probabilities) == {"4": 0.9, "5": 0.09}


def test_the_beginning_of_a_label_may_move_a_rating_by_a_little_only():
    likely = listed_probabilities(ADJECTIVES, listing(("fair", {"fair": 0.6, "ex": 0.3})))
    assert "whether 0.3 of the probability is on 'excellent' or no" in likely.unclear(ADJECTIVES)
    unlikely = listed_probabilities(ADJECTIVES, listing(("fair", {"fair": 0.9, "ex": 0.02})))
    assert unlikely.unclear(ADJECTIVES) == ""
    assert labelled(ADJECTIVES, unlikely.probabilities) == {"fair": 0.9}
    telling = listed_probabilities(ADJECTIVES, listing(("fair", {"fair": 0.6, "exc": 0.3})))
    assert labelled(ADJECTIVES, telling.probabilities) == {"fair": 0.6, "excellent": 0.3}
    ended = listed_probabilities(ADJECTIVES, listing(("exc", {"exc": 0.6, "fair": 0.4})))
    assert labelled(ADJECTIVES, ended.probabilities) == {"fair": 0.4}


def test_labels_of_many_words_and_one_that_begins_another():
    scale = Scale("own", ("good", "good enough", "very good"), 1, 3)
    positions = listing(
        ("good", {"good": 0.8, "very": 0.2}),
        (" enough", {" enough": 0.5, ".": 0.2, " grief": 0.3}),
    )
    listed = listed_probabilities(scale, positions)
    expected = {"good": 0.4, "good enough": 0.4, "very good": 0.2}
    assert labelled(scale, listed.probabilities) == expected
    assert not listed.open + listed.begun


@pytest.mark.parametrize("mark", ["\u2581", "\u0120"])
def test_tokens_shown_as_pieces_of_the_vocabulary(mark):
    p = listed_probabilities(
        ADJECTIVES, listing((f"{mark}good", {f"{mark}good": 0.7, "fair": 0.3}))
    )
    assert labelled(ADJECTIVES, p.probabilities) == {"good": 0.7, "fair": 0.3}


def listing(*positions):
    return [
        {
            "token": chosen,
            "logprob": np.log(top.get(chosen, 0.01)),
            "top_logprobs": [{"token": t, "logprob": np.log(p)} for t, p in top.items()],
        }
        for chosen, top in positions
    ]


def labelled(scale, p):
    return {label: round(float(q), 6) for label, q in zip(scale.labels, p, strict=True) if q > 0}


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        # Case and leading space are spellings of one label; other words count nothing.
        (
            [("Good", {"Good": 0.4, " good": 0.1, "fair": 0.2, "I": 0.2})],
            {"good": 0.5, "fair": 0.2},
        ),
        # The chosen token may be missing among the likeliest.
        ([("bad", {"good": 0.6})], {"bad": 0.01, "good": 0.6}),
        # White space first, then the label.
        ([("\n", {"\n": 0.9, "good": 0.1}), ("fair", {"fair": 1.0})], {"good": 0.1, "fair": 0.9}),
        # A label in pieces counts where the answer went that way; "go" might become anything.
        (
            [("exc", {"exc": 0.5, "go": 0.5}), ("ellent", {"ellent": 0.9, "use": 0.1})],
            {"excellent": 0.45},
        ),
        ([], {}),
    ],
)
def test_listed_probabilities_of_adjectives(positions, expected):
    p = listed_probabilities(ADJECTIVES, listing(*positions)).probabilities
    assert labelled(ADJECTIVES, p) == expected


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([("10", {"10": 0.5, "9": 0.3})], {"10": 0.5, "9": 0.3}),
        # p(10) = p(1) p(0|1); p(1) is the rest, whatever comes after it.
        (
            [("1", {"1": 0.8, "7": 0.2}), ("0", {"0": 0.5, "<|im_end|>": 0.3, "5": 0.1})],
            {"10": 0.4, "1": 0.4, "7": 0.2},
        ),
        # The answer did not go by "1": whether 1 or 10 was meant is unknown, so it is left out.
        ([("7", {"7": 0.6, "1": 0.4})], {"7": 0.6}),
        # It ended with "1".
        ([("1", {"1": 0.9, "2": 0.1})], {"1": 0.9, "2": 0.1}),
    ],
)
def test_listed_probabilities_of_digits(positions, expected):
    p = listed_probabilities(TEN, listing(*positions)).probabilities
    assert labelled(TEN, p) == expected


@pytest.mark.parametrize("logprob", [float("nan"), 1.0, "x", None])
def test_malformed_log_probabilities_are_refused(logprob):
    entry = {"token": "good", "logprob": logprob, "top_logprobs": []}
    with pytest.raises((ValueError, TypeError)):
        listed_probabilities(ADJECTIVES, [entry])


def test_named_scales_are_read_in_order():
    for name in ("adjectives", "1-5", "1-10", "good-poor"):
        scale = named_scale(name)
        ratings = [text_answer(scale, label, None).rating for label in scale.labels]
        assert ratings[0] == scale.low
        assert ratings[-1] == scale.high
        assert all(a < b for a, b in pairwise(ratings))
