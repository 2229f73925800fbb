"""The page and its figures, rendered from synthetic runs."""

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from rlli_jax.errors import InputError
from rlli_jax.report import load_run
from rlli_jax.report.findings import findings, share
from rlli_jax.studies import render

NBSP = "\N{NO-BREAK SPACE}"
MADE_UP_JUDGE = "made-up judge (synthetic numbers for tests)"
STAND_IN_NOTICE = "Scores come from a stand-in for a language model."


def plain(text):
    """With every run of white space, no-break spaces included, as one space."""
    return " ".join(text.split())


class Page(HTMLParser):
    """Text, tags with attributes, and table rows of a page; checks that tags are closed."""

    VOID = ("meta", "img", "br", "wbr", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = plain(" ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, make_run):
    """A run of the default's size, rendered once: (run directory, page)."""
    run_dir = make_run(tmp_path_factory.mktemp("runs") / "default", human=True)
    assert render(run_dir) == run_dir / "report.html"
    return run_dir, read(run_dir / "report.html")


def edit_evaluation(run_dir, name, **arrays):
    path = run_dir / "policies" / name / "evaluation.npz"
    with np.load(path) as file:
        np.savez(path, **dict(file) | arrays)


def test_report_imports_no_jax():
    code = "import sys, rlli_jax.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_page_names_everything(rendered):
    run_dir, page = rendered
    table = load_run(run_dir).table
    for name in (
        *table.users,
        *table.requests,
        *table.providers,
        "PPO knowing the persona",
        MADE_UP_JUDGE,
    ):
        assert name in page.text
    assert STAND_IN_NOTICE in page.text
    assert "5 users, 6 requests and 4 providers" in page.text
    assert "made-up device" in page.text
    assert "rounds: 10" in page.text
    assert "The command was: rlli made-up" in page.text
    assert "rlli run default/config.yaml --output default-again" in page.text


def test_ratios_and_times_are_those_of_the_data(rendered):
    run_dir, page = rendered
    run = load_run(run_dir)
    rows = {row[0]: row for row in page.rows if len(row) == 9}
    for policy in run.policies[:4]:
        optimum = run.table.provider_values.max(1).sum()
        ratio = 100 * policy.objective.mean() / optimum
        # Of ten values the interquartile mean keeps the middle six.
        middle = 100 * np.sort(policy.objective)[2:8].mean() / optimum
        row = rows[policy.name]
        assert row[1].startswith(f"{middle:.1f}{NBSP}% (")
        assert row[2] == f"{ratio:.1f}{NBSP}%"
        assert row[3].startswith(f"{policy.returns.mean():.2f} ± ")
        assert row[6:] == [time.replace(" ", NBSP) for time in ("12.6 s", "3.2 s", "1.23 M")]
    assert rows["Optimal"][2] == f"100.0{NBSP}%"
    assert rows["Optimal"][6:] == ["–", "–", "–"]


def test_headline_states_ties_as_ties(rendered):
    run_dir, page = rendered
    found = findings(load_run(run_dir))
    assert found.lead.startswith("PPO knowing the persona reaches 9")
    assert plain(found.lead) in page.text
    paper, persona, *gains, baselines = found.details
    assert paper.startswith("Observing last action and reward (as in the paper)")
    assert "tie" in paper
    assert "PPO knowing the persona is ahead of DQN knowing the persona by" in persona
    assert "tie" not in persona
    assert len(gains) == 2
    assert all("the interval excludes zero" in gain for gain in gains)
    assert "Random choice reaches" in baselines


def test_equal_policies_tie_in_the_lead(run_dir):
    run = load_run(run_dir)
    best = run.policies[2].objective
    edit_evaluation(
        run_dir, "DQN knowing the persona", objective=best + 1e-7
    )  # below what is printed
    lead = findings(load_run(run_dir)).lead
    assert "DQN knowing the persona and PPO knowing the persona tie: they reach" in lead


def test_share_is_relative_to_the_optimum(run_dir):
    optimum = load_run(run_dir).reference.optimum
    edit_evaluation(run_dir, "PPO", objective=np.full(5, optimum / 2))
    estimate = share(load_run(run_dir), load_run(run_dir).policies[0])
    np.testing.assert_allclose(tuple(map(float, estimate)), 0.5)


def test_best_provider_is_marked_for_each_user(rendered):
    run_dir, _ = rendered
    run = load_run(run_dir)
    page = (run_dir / "report.html").read_text()
    means = page[page.index("<h2>QoE means</h2>") :]
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', means, re.S)
    values = run.table.provider_values
    for k, user in enumerate(run.table.users):
        name, cells = rows[k]
        marks = ["best" in cell for cell in re.findall(r"<td class=\"([^\"]*)\"", cells)]
        assert html.unescape(name) == user
        assert marks == list(values[k] == values[k].max())


def test_human_opinion_stands_beside_its_references(rendered):
    _, page = rendered
    names = [row[0] for row in page.rows if len(row) == 2]
    expected = (
        "Best for each request",
        "PPO knowing the persona",
        "Best single provider (Film)",
        "PPO",
    )
    places = [names.index(name) for name in (*expected, "Random choice")]  # best score first
    assert places == sorted(places)
    assert "40 requests kept out of training" in page.text


def test_page_is_self_contained(rendered):
    run_dir, page = rendered
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for key in ("src", "href", "xlink:href"):
            assert re.match(r"data:|#|$", attributes.get(key) or "")
    text = (run_dir / "report.html").read_text()
    assert not re.search(r"url\((?!#)|@import|https?://", text)


def test_ids_are_unique_and_references_resolve(rendered):
    _, page = rendered
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for value in attributes.values():
            for target in re.findall(r"url\(#([^)]+)\)|^#(.+)$", value or ""):
                assert "".join(target) in ids


def test_figures_are_kept_as_svg_and_pdf(rendered):
    run_dir, _ = rendered
    names = ("curves-action-reward", "curves-action-reward-persona", "users", "choices",
             "profiles", "human")  # fmt: skip
    expected = {f"{name}.{kind}" for name in names for kind in ("svg", "pdf")}
    assert {path.name for path in (run_dir / "figures").iterdir()} == expected
    for path in (run_dir / "figures").iterdir():
        start = path.read_bytes()[:64]
        assert start.startswith(b"%PDF" if path.suffix == ".pdf" else b"<?xml")


def test_render_repeats_byte_for_byte_and_leaves_no_temporary_file(run_dir):
    first = render(run_dir).read_bytes()
    before = {path: path.read_bytes() for path in (run_dir / "figures").iterdir()}
    assert render(run_dir).read_bytes() == first
    assert {path: path.read_bytes() for path in (run_dir / "figures").iterdir()} == before
    assert not [path for path in run_dir.rglob(".*")]


def test_a_failed_render_keeps_the_old_report(run_dir):
    report = render(run_dir)
    report.write_text("the old report")
    (run_dir / "table.npz").unlink()
    with pytest.raises(InputError):
        render(run_dir)
    assert report.read_text() == "the old report"


def test_no_stand_in_notice_for_a_language_model(run_dir):
    with np.load(run_dir / "table.npz") as file:
        np.savez(run_dir / "table.npz", **dict(file) | {"stand_in": np.array(False)})
    assert STAND_IN_NOTICE not in read(render(run_dir)).text


def test_large_run_says_what_it_leaves_out(tmp_path, make_run):
    run_dir = make_run(
        tmp_path / "large",
        users=[f"user {k}" for k in range(14)],
        requests=[f"request {r}" for r in range(20)],
        providers=[f"provider_{p}" for p in range(10)],
        samples=1,
        seeds=2,
        iterations=900,
        pictures=False,
        holes=0.02,
    )
    page = read(render(run_dir))
    assert "Shown are the first 12 of 20 requests." in page.text
    assert "Shown are the first 12 of 14 users." in page.text
    assert "This run kept no pictures." in page.text
    assert "scores are missing" in page.text
    assert "request 11" in page.text
    assert "request 12" not in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


@pytest.mark.parametrize(("seeds", "why"), [(1, "1 seed gives"), (4, "4 seeds give")])
def test_fewer_than_five_seeds_have_no_interval_and_no_ranking(tmp_path, make_run, seeds, why):
    run_dir = make_run(tmp_path / "few", seeds=seeds, iterations=1, pictures=False)
    page = read(render(run_dir))
    assert page.text.count("cannot be told apart or ranked by so few seeds") == 2
    assert f"{why} no interval: below 5 seeds" in page.text
    assert "nan" not in page.text.lower()
    findings = page.text[: page.text.index("Policies Policy")]
    for claim in ("95 % interval ", " tie", " points (", "excludes zero", "is ahead"):
        assert claim not in findings.split("Shares are interquartile")[0]


def test_run_without_learned_policies(run_dir):
    for name in ("PPO", "DQN", "PPO knowing the persona", "DQN knowing the persona"):
        shutil.rmtree(run_dir / "policies" / name)
    (run_dir / "human.json").unlink()
    page = read(render(run_dir))
    assert "No policy of this run was trained." in page.text
    assert "Learning curves" not in page.text


def test_markup_and_dollar_signs_in_names_are_text(tmp_path, make_run):
    names = ("<b>Ada</b> & $x$", "Bruno $")
    run_dir = make_run(tmp_path / "a & <b>", users=names, pictures=False, seeds=2)
    page = read(render(run_dir))
    assert names[0] in page.text
    assert not [tag for tag, _ in page.tags if tag == "b"]


def test_learners_with_other_steps_per_iteration_share_an_axis_of_steps(run_dir):
    path = run_dir / "policies" / "DQN" / "curve.npz"
    with np.load(path) as file:
        np.savez(path, **dict(file) | {"env_steps": file["env_steps"] // 2})
    render(run_dir)
    paper = (run_dir / "figures" / "curves-action-reward.svg").read_text()
    persona = (run_dir / "figures" / "curves-action-reward-persona.svg").read_text()
    assert ">Environment steps<" in paper
    assert ">Iterations of 2,048 environment steps<" in persona


def test_evaluation_on_requests_kept_out_of_training(tmp_path, make_run):
    run_dir = make_run(tmp_path / "split", held_out=0.5, seeds=2, holes=0.05)
    run, page = load_run(run_dir), read(render(run_dir))
    assert run.held_out
    assert set(run.train.requests).isdisjoint(run.test.requests)
    assert run.reference.optimum == pytest.approx(run.test.references()["optimum"])
    assert "evaluated on 3 requests kept out of training" in page.text
    assert "random choice on the training requests" in page.text


def test_chromium_shows_it_without_errors(rendered, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed.")
    run_dir, page = rendered
    # The script reports through the console, so that seeing its line proves the console is read.
    check = """<script>addEventListener("load", () => {
      const images = [...document.images], wide = document.documentElement.scrollWidth;
      const broken = images.filter(i => !(i.complete && i.naturalWidth > 0)).length;
      console.log(`images ${images.length} broken ${broken} overflow ${wide > innerWidth}`);
    })</script></body>"""
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", check), encoding="utf-8")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync dump-dom"
    flags += " disable-background-networking disable-component-update enable-logging=stderr v=0"
    result = subprocess.run(
        [chromium, *(f"--{flag}" for flag in flags.split()), "--window-size=500,900",
         f"--user-data-dir={tmp_path / 'profile'}", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    images = sum(tag == "img" for tag, _ in page.tags)
    assert images == 6 * 4 - 1
    assert len(console) == 1, console
    assert f"images {images} broken 0 overflow false" in console[0]


def test_no_profile_is_drawn_of_users_known_by_name_only(run_dir):
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    for judge, shown in (("psychometric", True), ("recorded", False)):
        config["judge"] = {"kind": judge}
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
        page = render(run_dir).read_text()
        assert ("Big Five profile" in page) == shown
        assert ("<h2>The users</h2>" in page) == shown
