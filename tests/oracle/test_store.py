"""The store: answers come back as they were given, leases, damage, and no secrets."""

import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, Rated, Usage
from rlli_jax.oracle.keys import Parts, sha256
from rlli_jax.oracle.schema import ANSWERS, LEASES, Row, checked
from rlli_jax.oracle.store import Experience, default_path, open_store
from rlli_jax.qoe.answers import Answers

JUDGE = sha256("judge")


def parts(index, judge=JUDGE):
    digests = {"persona": sha256(f"persona {index % 7}"), "scale": sha256("scale")}
    return Parts(judge=judge, picture=sha256("picture"), request="r", sample=index, **digests)


def row(index, answer, *, seconds=0.5, now=1.0):
    return Row.of(parts(index), answer, seconds=seconds, now=now)


def keys(*indices):
    return [parts(i).key() for i in indices]


def record(store, answers, owner="me", texts=()):
    store.record(owner, [row(i, a) for i, a in answers.items()], dict(texts))


def test_answers_come_back_as_they_were_given(store):
    given = {
        0: Rated(1 / 3, 0.1 + 0.2, "good\n球 \N{GRINNING FACE}"),
        1: Invalid("no rating", 'I "cannot" say'),
        2: Failed("timeout"),
        3: Rated(5.0),
    }
    record(store, given)
    made = keys(0, 1, 2, 3, 4)
    assert store.lookup(made) == {made[0]: given[0], made[1]: given[1], made[3]: given[3]}


@pytest.mark.parametrize("chunk", [500, 1], ids=["row by row", "all at once"])
def test_filling_columns_finds_what_a_lookup_finds(store, monkeypatch, chunk):
    monkeypatch.setattr("rlli_jax.oracle.store.CHUNK", chunk)
    rng = np.random.default_rng(0)
    record(
        store,
        {
            i: (Rated(i / 7, 0.5, f"{i}"), Invalid("no", f"{i}"), Failed("no"))[i % 3]
            for i in range(60)
        },
    )
    asked = rng.permutation(90)[:70].tolist()  # some are not stored, some stored are not asked
    answers = Answers.empty(100)
    places = dict(zip(keys(*asked), rng.permutation(100)[:70].tolist(), strict=True))
    store.fill(answers, places)
    known = store.lookup(places)
    assert 30 < len(known) < 60
    for key, place in places.items():
        assert answers.unknown[place] == (key not in known)
        if key in known:
            assert answers[place] == known[key]
    assert (~answers.unknown).sum() == len(known)
    store.fill(answers, {})


def test_more_keys_than_fit_one_statement(store):
    record(store, {i: Rated(i / 100) for i in range(30)})
    others = [sha256(str(i)).encode()[:32] for i in range(66_000)]  # PostgreSQL takes 65,535
    assert len(store.lookup([*keys(*range(30)), *others])) == 30


def test_final_answers_are_never_replaced_and_failures_are(store):
    record(store, {0: Rated(1.0), 1: Invalid("no"), 2: Failed("timeout")})
    record(store, {0: Failed("reset"), 1: Rated(2.0), 2: Rated(3.0)})
    first, second, third = keys(0, 1, 2)
    assert store.lookup([first, second, third]) == {
        first: Rated(1.0),
        second: Invalid("no"),
        third: Rated(3.0),
    }


def test_what_no_database_takes_is_replaced(store):
    record(store, {0: Rated(1.0, raw="a\0b\ud800c")})
    (answer,) = store.lookup(keys(0)).values()
    assert answer.raw == "a\N{REPLACEMENT CHARACTER}b?c"


def test_usage_is_kept_and_averaged(store):
    usages = [Usage(100, 10, 0.5, 1.0), Usage(200, 30, 1.5, 2.0), Usage()]
    record(store, {i: replace(Rated(1.0), usage=usage) for i, usage in enumerate(usages)})
    assert store.experience(JUDGE) == Experience(tokens=170, cost=1.0, seconds=0.5)
    assert store.experience(sha256("another")) == Experience(None, None, None)
    latencies = {found.latency for found in store.rows()}
    assert latencies == {1.0, 2.0, None}


def test_stats(store):
    record(
        store,
        {
            0: Rated(1.0, 0.5, usage=Usage(3, 4, 0.25)),
            1: Rated(1.0, 1.0),
            2: Invalid("no"),
            3: Failed("timeout"),
        },
        texts={JUDGE: "the judge"},
    )
    (stats,) = store.stats()
    assert stats == type(stats)("the judge", 2, 1, 1, 0.75, 7, 0.25)


# Leases


def test_a_question_has_one_owner(store):
    mine = store.claim("me", keys(0, 1, 2), 60)
    assert mine == set(keys(0, 1, 2))
    assert store.claim("you", keys(1, 2, 3), 60) == set(keys(3))
    assert store.claim("me", keys(1), 60) == set(keys(1))
    store.release("me")
    assert store.claim("you", keys(1, 2), 60) == set(keys(1, 2))


def test_an_answer_ends_the_lease_and_cannot_be_claimed(store):
    store.claim("me", keys(0, 1, 2), 60)
    record(store, {0: Rated(1.0), 1: Failed("timeout")})
    assert store.claim("you", keys(0, 1, 2), 60) == set(keys(1))


def test_a_lease_runs_out_unless_it_is_renewed(store):
    store.claim("dead", keys(0), 0.3)
    store.claim("alive", keys(1), 0.3)
    store.renew("alive", 60)
    assert store.claim("me", keys(0, 1), 60) == set()
    time.sleep(0.35)
    assert store.claim("me", keys(0, 1), 60) == set(keys(0))


# Checks, and housekeeping


def test_every_row_is_its_own_witness(store):
    record(store, {i: Rated(1.0 + i, 0.5, "raw") for i in range(3)})
    rows = list(store.rows())
    assert None not in rows
    columns = rows[0].columns()
    assert checked(columns) == rows[0]
    for name, value in {
        "rating": 2.5,
        "kind": "invalid",
        "raw": "row",
        "request": "other",
        "sample": 77,
        "persona": b"x" * 32,
        "key": b"x" * 32,
        "judge": None,
        "valid_mass": "much",
    }.items():
        assert checked({**columns, name: value}) is None, name


def test_delete_takes_texts_that_nothing_needs_with_it(store):
    other = sha256("other judge")
    texts = {JUDGE: "judge", other: "other judge", sha256("scale"): "scale"}
    record(store, {0: Rated(1.0), 1: Rated(2.0)}, texts=texts)
    store.record("me", [Row.of(parts(0, other), Rated(1.0), seconds=None, now=1.0)], {})
    assert store.delete(ANSWERS.c.judge == bytes.fromhex(JUDGE)) == 2
    assert set(store.texts()) == {other, sha256("scale")}
    assert not store.lookup(keys(0, 1))


def test_secrets_in_the_environment_are_struck_out_of_texts(store, monkeypatch, address):
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-value")
    said = "Incorrect API key: sk-very-secret-value."
    record(store, {0: Failed(said), 1: Invalid(said, said), 2: Rated(1.0, raw=said)})
    for found in store.rows():
        assert "sk-very-secret-value" not in repr(found)
        assert "<SOME_API_KEY>" in repr(found)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("postgresql://me:pass@host/db", "holds a password"),
        ("postgresql://host/db?password=x", "holds a password"),
        ("mysql://host/db", "mysql is not supported"),
        ("postgresql://host:port/db", "malformed"),
        ("postgresql://nobody@127.0.0.1:1/db", "see that it can be reached"),
    ],
)
def test_bad_addresses(where, problem):
    if "127.0.0.1" in where:
        pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=problem) as caught:
        open_store(where)
    assert "pass@" not in str(caught.value)


def test_without_psycopg(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"pip install 'rlli_jax\[postgresql\]'"):
        open_store("postgresql://me@127.0.0.1:1/db")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"store .*file/answers.sqlite: "):
        open_store(tmp_path / "file" / "answers.sqlite")


def test_the_default_is_in_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path().is_relative_to(tmp_path) or default_path().is_absolute()
    assert default_path().name == "answers.sqlite"


def test_sqlite_writes_ahead(tmp_path):
    store = open_store(tmp_path / "a.sqlite")
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


# Damage

SIZE = 1200


@pytest.fixture
def full(tmp_path):
    """A SQLite store with many answers, closed; the messages it will give."""
    path = tmp_path / "answers.sqlite"
    store = open_store(path)
    record(store, {i: Rated(i / SIZE, 1.0, f"raw {i}") for i in range(SIZE)}, texts={JUDGE: "j"})
    store.close()
    assert path.stat().st_size > 200_000
    return path


def overwrite(path, start, length, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, length, np.uint8).tobytes()
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(noise)


@pytest.mark.parametrize("length", [4096 * 3, 700])
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_is_set_aside_and_the_readable_is_salvaged(full, length, seed):
    overwrite(full, full.stat().st_size * (2 * seed + 3) // 10, length, seed)
    before = full.read_bytes()
    messages = []
    store = open_store(full, message=messages.append)
    found = store.lookup(keys(*range(SIZE)))
    # At most three pages are hit, but a page may lead to a dozen others. None may be wrong.
    assert SIZE / 3 < len(found) < SIZE
    assert all(
        found[k] == Rated(i / SIZE, 1.0, f"raw {i}")
        for i, k in enumerate(keys(*range(SIZE)))
        if k in found
    )
    (message,) = messages
    (aside,) = full.parent.glob("*.damaged-*")
    assert aside.read_bytes() == before
    assert aside.name in message
    assert f"{len(found):,} answers" in message
    assert not store.database.problems()
    record(store, {i: Rated(i / SIZE, 1.0, f"raw {i}") for i in range(SIZE)})
    assert len(store.lookup(keys(*range(SIZE)))) == SIZE
    store.close()


def test_one_wrong_byte_in_a_rating_is_found(full):
    content = bytearray(full.read_bytes())
    content[content.index(b"raw 1023") + 4] = ord("9")
    full.write_bytes(content)
    messages = []
    store = open_store(full, message=messages.append)
    found = store.lookup(keys(*range(SIZE)))
    assert set(keys(*range(SIZE))) - set(found) == set(keys(1023))
    assert len(messages) == 1
    store.close()


def other_database(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE moz_places (url TEXT)")
        connection.commit()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"request,provider,rating\nbridge,prism,4\n",
        b"a table rlli_answers is what this text is about",
        b"\x00" * 50_000,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 30,
        other_database,
    ],
    ids=["a csv", "a text", "zeros", "a picture", "another program's database"],
)
def test_a_file_that_never_was_a_store_is_refused_and_left_as_it_is(tmp_path, content, read_only):
    path = tmp_path / "precious"
    content(path) if callable(content) else path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"precious: this is not a store .* left as it is, name"):
        open_store(path, message=pytest.fail, read_only=read_only)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_an_empty_file_and_an_empty_database_become_stores(tmp_path):
    (tmp_path / "touched").touch()
    sqlite3.connect(tmp_path / "empty").close()
    with closing(sqlite3.connect(tmp_path / "wal")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    for name in ("touched", "empty", "wal"):
        with closing(open_store(tmp_path / name, message=pytest.fail)) as store:
            record(store, {0: Rated(1.0)})
            assert len(store.lookup(keys(0))) == 1


def test_a_store_whose_beginning_was_overwritten_is_salvaged(full):
    overwrite(full, 0, 16)
    messages = []
    store = open_store(full, message=messages.append)
    assert len(store.lookup(keys(*range(SIZE)))) == SIZE
    assert f"the {SIZE:,} answers" in messages[0]
    assert len(list(full.parent.glob("*.damaged-*"))) == 1
    store.close()


# Reading


def snapshot(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_reading_changes_nothing(full):
    before = snapshot(full.parent)
    with closing(open_store(full, message=pytest.fail, read_only=True)) as store:
        assert len(store.lookup(keys(*range(SIZE)))) == SIZE
        assert store.stats()[0].rated == SIZE
        assert sum(1 for row in store.rows() if row is not None) == SIZE
        assert store.database.problems() == []
        with pytest.raises(InputError, match="readonly"):
            record(store, {SIZE: Rated(1.0)})
    assert snapshot(full.parent) == before


def test_reading_sees_what_another_process_has_just_written(full):
    with closing(open_store(full)) as writer:
        record(writer, {SIZE: Rated(0.5)})  # in the write-ahead log
        with closing(open_store(full, read_only=True)) as reader:
            assert len(reader.lookup(keys(SIZE))) == 1


def test_reading_from_a_read_only_disk(full, read_only):
    read_only(full.parent)
    with closing(open_store(full, read_only=True)) as store:
        assert len(store.lookup(keys(*range(SIZE)))) == SIZE
    with pytest.raises(InputError, match="see that it can be reached and written, or name"):
        open_store(full)


def test_reading_what_is_not_there_makes_nothing(address, tmp_path):
    with closing(open_store(address, read_only=True)) as store:
        assert store.lookup(keys(0)) == {}
        assert store.stats() == []
        assert list(store.rows()) == []
    assert list(tmp_path.iterdir()) == []
    if "://" in address:
        import psycopg

        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT to_regclass('rlli_answers')").fetchone() == (None,)


def test_reading_what_is_damaged_is_one_sentence_and_changes_nothing(full):
    overwrite(full, full.stat().st_size // 2, 4096 * 3)
    before = snapshot(full.parent)
    with closing(open_store(full, message=pytest.fail, read_only=True)) as store:
        with pytest.raises(
            InputError, match=r"the file is damaged .* asks a judge takes over what"
        ):
            store.lookup(keys(*range(SIZE)))
        with pytest.raises(InputError):
            list(store.rows())
        assert store.database.problems()
    assert snapshot(full.parent) == before


# Tables of other versions


def change(address, *statements):
    """Change the tables of a store behind its back."""
    if "://" in address:
        import psycopg

        with psycopg.connect(address, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with closing(sqlite3.connect(address)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def older(address):
    """Where a store with one answer is, made by the present version."""
    with closing(open_store(address, message=pytest.fail)) as store:
        record(store, {0: Rated(1.0)})
    return address


def test_columns_of_later_versions_are_added(older):
    lost = [f"ALTER TABLE rlli_answers DROP COLUMN {name}" for name in ("latency", "cost")]
    change(older, *lost)
    with closing(open_store(older, read_only=True)) as store:
        assert len(store.lookup(keys(0))) == 1
        with pytest.raises(InputError, match=r"made by an older version .*; the next command that"):
            store.stats()
    with closing(open_store(older, message=pytest.fail)) as store:
        record(store, {1: Rated(2.0, usage=Usage(cost=0.5, seconds=3.0))})
        assert store.lookup(keys(0, 1)).keys() == set(keys(0, 1))
        rows = sorted(store.rows(), key=lambda row: row.sample)
        assert [(r.cost, r.latency) for r in rows] == [(None, None), (0.5, 3.0)]


def test_a_column_that_is_not_known_does_no_harm(older):
    change(
        older,
        "ALTER TABLE rlli_answers ADD COLUMN mood TEXT",
        "ALTER TABLE rlli_answers ADD COLUMN version INTEGER NOT NULL DEFAULT 2",
    )
    with closing(open_store(older, message=pytest.fail)) as store:
        record(store, {1: Rated(2.0)})
        assert len(store.lookup(keys(0, 1))) == 2


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE rlli_answers DROP COLUMN checksum"],
        ["ALTER TABLE rlli_leases DROP COLUMN expires"],
        [
            "ALTER TABLE rlli_answers RENAME TO earlier",
            "CREATE TABLE rlli_answers AS SELECT * FROM earlier",
            "DROP TABLE earlier",
        ],
        [
            "DROP TABLE rlli_leases",
            "CREATE TABLE rlli_leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, "
            "expires REAL NOT NULL, machine TEXT NOT NULL)",
        ],
    ],
    ids=["no checksum", "no end of leases", "no primary key", "a column without a default"],
)
def test_tables_that_do_not_fit_are_found_when_the_store_is_opened(older, statements):
    change(older, *statements)
    with pytest.raises(InputError, match=r"tables do not fit this version .*name another store"):
        open_store(older, message=pytest.fail)


def test_opening_leaves_no_trace_of_its_trial(store):
    assert list(store.rows()) == []
    assert store.texts() == {}
    with store.database.engine.connect() as connection:
        assert connection.execute(sa.select(LEASES)).all() == []


# Clocks and disks


def test_a_lease_of_a_clock_that_was_set_back_lasts_no_longer_than_others(store):
    assert store.claim("gone", keys(0), 3600.0) == set(keys(0))
    assert store.claim("me", keys(0), 0.2) == set()  # its owner may be alive
    assert store.waiting("me", keys(0, 1)).owners == ("gone",)
    time.sleep(0.25)
    assert store.claim("me", keys(0), 0.2) == set(keys(0))


def test_a_full_disk_is_one_sentence_and_loses_no_answer_that_was_kept(small_disk):
    disk, enlarge = small_disk("256k")
    store = open_store(disk / "a.sqlite", message=pytest.fail)
    record(store, {0: Rated(1.0)})
    with pytest.raises(InputError, match="disk is full; see that it can be"):
        record(store, {1: Rated(1.0, raw="x" * 300_000)})
    assert set(store.lookup(keys(0, 1))) == set(keys(0))
    enlarge("4m")
    record(store, {1: Rated(1.0, raw="x" * 300_000)})
    assert len(store.lookup(keys(0, 1))) == 2
    store.close()


def test_a_truncated_file(full):
    content = full.read_bytes()
    full.write_bytes(content[: len(content) * 2 // 3])
    messages = []
    store = open_store(full, message=messages.append)
    found = store.lookup(keys(*range(SIZE)))
    assert SIZE / 3 < len(found) < SIZE
    assert len(messages) == 1
    store.close()


def test_another_process_that_holds_the_file_follows(full):
    ours, theirs = (open_store(full, message=lambda text: None) for _ in range(2))
    assert len(theirs.lookup(keys(*range(SIZE)))) == SIZE
    ours.database.repair()
    record(theirs, {SIZE: Rated(1.0)})
    assert len(ours.lookup(keys(*range(SIZE + 1)))) == SIZE + 1
    theirs.close()
    ours.close()


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_damaged_row_of_a_server_is_an_error(store):
    record(store, {0: Rated(1.0)})
    with store.database.engine.begin() as connection:
        connection.execute(sa.update(ANSWERS).values(rating=2.0))
    with pytest.raises(InputError, match="damaged"):
        store.lookup(keys(0))
