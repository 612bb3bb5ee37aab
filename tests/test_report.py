"""The report: its numbers are evaluate's, and a browser shows them without complaint."""

import json
import shutil

import pytest

from dense_hn import DenseHNError, cli, trec
from dense_hn.diagnose import __main__ as diagnose
from dense_hn.report import __main__ as command
from dense_hn.report.comparison import CHARACTERS, Comparison, changed, cut
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline
from dense_hn.train.places import Places

# A page that does not escape it says so in the browser's console.
HOSTILE = "</script><script>console.error('run')</script><b onclick=x>&amp; \u2028 "
RECIPE = """
collection: {{folder: {folder}}}
encoder: {{source: {encoder}}}
evaluate: {{topics: test, hits: 20, measures: [nDCG@10, RR@10]}}
star: &fast {{method: star, negatives: [bm25], max_steps: 2, use_cpu: true, logging_steps: 1,
  per_device_train_batch_size: 4, learning_rate: 1e-3}}
adore: {{method: adore, adore_hits: 20, max_steps: 2, use_cpu: true, logging_steps: 1,
  per_device_train_batch_size: 4, learning_rate: 1e-3}}
"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, split_folder_in, bert, pyserini_here) -> Pipeline:
    """A recipe that ran, on a collection with a passage and topics that are hostile."""
    folder = tmp_path_factory.mktemp("report")
    made = split_folder_in(folder)
    corpus = made / "corpus" / "corpus.jsonl"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    for line in lines:
        line["contents"] += HOSTILE * (line["id"] == "white-river")
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    topics = trec.read_topics(made / "topics.test.tsv")
    hostile = {qid: f"{text} {HOSTILE}".rstrip() for qid, text in topics.items()}
    trec.write_topics(made / "topics.test.tsv", hostile)
    path = folder / "small.yaml"
    path.write_text(RECIPE.format(folder=made, encoder=bert))
    pipeline = Pipeline(recipe.read(str(path)), folder / "out")
    pipeline.run()
    return pipeline


def refused(monkeypatch, capsys, *words: object) -> str:
    """What the command says as it refuses."""
    monkeypatch.setattr("sys.argv", ["report", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.run(command.main)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_topics_that_changed_most_for_every_two_systems():
    values = {
        "a": [0.0, 0.5, 1.0, 0.2, 0.0, 0.3],
        "b": [0.0, 0.9, 0.5, 0.3, 0.0, 0.3],
        "c": [0.1, 0.9, 0.5, 0.3, 0.0, 0.3],
    }
    # a to b: topic 1 gains most, 2 loses; b to c: 0 gains, none loses; a to c as a to b.
    assert changed(values, 1) == [0, 1, 2]
    assert changed(values, 2) == [0, 1, 2, 3]
    assert changed(values, 0) == []


def test_stages_of_what_a_recipe_once_was(ran):
    """Of another split, and of a training that has another name now."""
    left = "star2", "star2.encode", "star.dev", "bm25.dev", "topics.dl19"
    assert not any(map(ran.has_stage, left))
    assert all(map(ran.has_stage, ran.ledger.stages))


def test_long_texts_are_cut_and_say_so():
    assert cut("x" * CHARACTERS) == "x" * CHARACTERS
    assert cut("x" * CHARACTERS + "yz") == "x" * CHARACTERS + "…"


def test_nothing_in_the_data_ends_its_element():
    told = Comparison(
        measure="RR@10",
        topics=[("q", HOSTILE)],
        values={"a": [1.0]},
        hits={"q": {"a": ["d"]}},
        relevant={"q": []},
        texts={"d": HOSTILE},
    ).as_json()
    assert "<" not in told
    assert json.loads(told)["texts"] == {"d": HOSTILE}


def test_what_cannot_be_reported_is_refused(ran, tmp_path, monkeypatch, capsys):
    for words, message in (
        ([tmp_path], "no recipe ran with this output folder"),
        ([ran.root, "--recipe", "smal"], "unknown recipe 'smal'; did you mean 'small'"),
        ([ran.root, "--output", tmp_path / "page"], "name a file that ends in .html"),
        ([ran.root, "--topics", "-1"], "--topics is -1"),
        ([ran.root, "--diagnosis", tmp_path / "none"], "a diagnosis not found"),
    ):
        assert message in refused(monkeypatch, capsys, *words)
    copy = tmp_path / "copy"
    shutil.copytree(ran.root, copy)
    (copy / "work" / "second").mkdir()
    shutil.copy(ran.ran, copy / "work" / "second" / "second.yaml")
    said = refused(monkeypatch, capsys, copy)
    assert "several recipes ran: second, small; name one" in said
    places = Places.found(copy, "small")
    upside_down = {
        qid: {docid: -score for docid, score in hits.items()}
        for qid, hits in trec.read_run(places.hits("star", "test")).items()
    }
    trec.write_run(places.hits("star", "test"), upside_down, "star")
    said = refused(monkeypatch, capsys, copy, "--recipe", "small")
    assert "the run has changed; run" in said
    places.table.with_suffix(".json").unlink()
    assert "no table; run" in refused(monkeypatch, capsys, copy, "--recipe", "small")
    shutil.rmtree(places.model("base").parent)
    assert "is not in it" in refused(monkeypatch, capsys, copy, "--recipe", "small")


def test_a_diagnosis_of_all_that_a_recipe_trained(ran, tmp_path, monkeypatch, capsys):
    argv = ["--folder", ran.root, "--split", "test", "--output", tmp_path / "found"]
    monkeypatch.setattr("sys.argv", ["diagnose", *map(str, argv)])
    diagnose.main()
    # The same, with everything named.
    argv = ["--topics", ran.topics("test"), "--qrels", ran.judged("test")]
    for name, space in (("base", "base"), ("star", "star"), ("adore", "star")):
        argv += ["--system", name, ran.model(name), ran.vectors(space)]
    argv += ["--output", tmp_path / "named"]
    monkeypatch.setattr("sys.argv", ["diagnose", *map(str, argv)])
    diagnose.main()
    for path in (tmp_path / "named").iterdir():
        assert path.read_bytes() == (tmp_path / "found" / path.name).read_bytes()
    monkeypatch.setattr("sys.argv", ["diagnose", "--output", str(tmp_path / "x")])
    with pytest.raises(DenseHNError, match="give --system, or --folder"):
        diagnose.main()


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, that keeps what pages say in its console."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver here (Debian: chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
    ):
        options.add_argument(f"--{word}")
    service = webdriver.ChromeService(DRIVER)
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


def test_a_browser_shows_it(ran, browser, tmp_path, monkeypatch):
    until = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
    page, drawn = tmp_path / "report.html", tmp_path / "drawn"
    argv = ["--folder", ran.root, "--output", drawn]
    monkeypatch.setattr("sys.argv", ["diagnose", *map(str, argv)])
    diagnose.main()
    argv = [ran.root, "--output", page, "--topics", 2, "--diagnosis", drawn]
    monkeypatch.setattr("sys.argv", ["report", *map(str, argv)])
    command.main()
    browser.get(page.as_uri())
    find = browser.find_element
    every = browser.find_elements

    # The table is evaluate's.
    rows = json.loads(ran.table.with_suffix(".json").read_text())["rows"]
    shown = every("css selector", "#scores tbody tr")
    names = [row.get_attribute("data-system") for row in shown]
    assert names == ["BM25", "untrained", "star", "adore"]
    for row, element in zip(rows, shown, strict=True):
        means = element.find_elements("css selector", ".mean")
        assert [mean.text for mean in means] == [
            f"{cell['mean']:.4f}" for cell in row["cells"].values()
        ]

    # Adore against BM25, as the table's means have it.
    difference = (
        rows[-1]["cells"]["nDCG@10"]["mean"] - rows[0]["cells"]["nDCG@10"]["mean"]
    )
    assert f"{difference:+.4f} on average" in find("id", "told").text
    listed = every("css selector", "#list tr")
    gains = [float(row.text.split()[-1]) for row in listed]
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)

    def choose(select: str, value: str) -> None:
        find("css selector", f"#{select} option[value='{value}']").click()

    choose("theirs", "adore")
    assert "same on 6; 0.0000 on average" in find("id", "told").text
    choose("theirs", "untrained")
    for value, wanted in (
        ("gained", sum(gain > 0 for gain in differences(browser))),
        ("lost", sum(gain < 0 for gain in differences(browser))),
    ):
        choose("filter", value)
        assert len(every("css selector", "#list tr")) == wanted
    choose("filter", "all")
    topics = trec.read_topics(ran.topics("test"))
    (qid,) = [qid for qid, text in topics.items() if "river , white" in text]
    find("id", "search").send_keys("RIVER , white")
    (row,) = every("css selector", "#list tr")
    assert row.get_attribute("data-qid") == qid
    find("id", "search").clear()
    find("id", "search").send_keys("nowhere")
    assert not every("css selector", "#list tr")

    # Rankings are the runs', and what is relevant is marked.
    find("id", "search").clear()
    find("id", "search").send_keys(" ")
    choose("filter", "ranked")
    qrels = trec.read_qrels(ran.judged("test"))
    chosen = every("css selector", "#list tr")
    assert chosen
    for row in chosen:
        row.click()
        qid = row.get_attribute("data-qid")
        for system, side in zip(
            ("base", "adore"), every("css selector", ".sides ol"), strict=True
        ):
            hits = trec.ranked(trec.read_run(ran.hits(system, "test"))[qid])[:10]
            items = side.find_elements("css selector", "li")
            names = [one.find_element("css selector", "b").text for one in items]
            assert names == hits
            marked = [
                name
                for name, one in zip(names, items, strict=True)
                if one.get_attribute("class") == "relevant"
            ]
            assert marked == [docid for docid in hits if docid in qrels[qid]]

    # Every figure is drawn; both themes; nothing is wider than a phone.
    figures = every("css selector", ".figure")
    assert len(figures) > 5
    assert all(one.find_elements("css selector", ".main-svg") for one in figures)
    (image,) = every("css selector", "#diagnosis img")
    assert int(image.get_property("naturalWidth")) > 100
    assert find("css selector", "#diagnosis pre").text == (
        (drawn / "table.txt").read_text().rstrip()
    )
    backgrounds = set()
    for _ in range(2):
        find("id", "theme").click()
        body = find("css selector", "body")
        backgrounds.add(body.value_of_css_property("background-color"))
    assert len(backgrounds) == 2
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    width = "return document.documentElement.scrollWidth"
    # Figures follow the window a moment later.
    until(browser, 20).until(lambda driver: driver.execute_script(width) == 390)

    # Nothing was complained of, nothing was run, nothing was fetched.
    assert browser.get_log("browser") == []
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


def differences(browser) -> list[float]:
    """The last column of the list."""
    rows = browser.find_elements("css selector", "#list tr")
    return [float(row.text.split()[-1]) for row in rows]
