"""Measures by hand and in slow loops, tests by enumeration, tables read back."""

import csv
import itertools
import json
import math
import re
import sys

import numpy as np
import pytest
from scipy import stats

from dense_hn import DenseHNError, trec
from dense_hn.evaluate import __main__ as command
from dense_hn.evaluate import measures, significance
from dense_hn.evaluate.measures import Measure, Scored, per_query

QRELS = {"q1": {"a": 1, "b": 2}, "q2": {"c": 1}, "q3": {"d": 1}}
RUN = {
    "q1": {"x": 9.0, "b": 8.0, "y": 7.0, "a": 6.0},
    "q2": {"x": 3.0, "y": 2.0, "c": 1.0},
    "unjudged": {"a": 1.0},
}


def test_measures_by_hand():
    """q3 is judged and not in the run: it counts, with 0."""
    names = ["RR@10", "RR@2", "R@2", "nDCG@10", "Judged@2", "Judged@9"]
    found = per_query(QRELS, RUN, names)
    assert list(found) == names
    assert found["RR@10"] == {"q1": 1 / 2, "q2": pytest.approx(1 / 3), "q3": 0.0}
    assert found["RR@2"] == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    assert found["R@2"] == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    gain = 2 / np.log2(3) + 1 / np.log2(5)
    ideal = 2 + 1 / np.log2(3)
    assert found["nDCG@10"]["q1"] == pytest.approx(gain / ideal)
    assert found["nDCG@10"]["q2"] == pytest.approx(1 / 2)
    # Of two; of the four and three that there are.
    assert found["Judged@2"] == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    assert found["Judged@9"] == {"q1": 0.5, "q2": pytest.approx(1 / 3), "q3": 0.0}


def test_a_level_makes_lower_grades_not_relevant():
    """By hand: a (grade 1) is first and b (grade 2) second; c (grade 2) is not found."""
    qrels, run = {"q": {"a": 1, "b": 2, "c": 2}}, {"q": {"a": 2.0, "b": 1.0}}
    names = ["RR@10", "RR(rel=2)@10", "R@10", "R(rel=2)@10", "nDCG@10"]
    found = [by_topic["q"] for by_topic in per_query(qrels, run, names).values()]
    ndcg = (1 + 2 / math.log2(3)) / (2 + 2 / math.log2(3) + 1 / 2)
    assert found == pytest.approx([1, 0.5, 2 / 3, 0.5, ndcg])


def slowly(measure: Measure, judged: dict[str, int], hits: dict[str, float]) -> float:
    """One topic's value, in a loop over the definition."""
    order = sorted(hits, key=lambda docid: (np.float32(hits[docid]), docid))[::-1]
    cut = measure.cut or len(order)
    relevant = {docid for docid, grade in judged.items() if grade >= measure.level}
    ranks = [r for r, docid in enumerate(order[:cut], 1) if docid in relevant]
    match measure.family:
        case "RR":
            return 1 / ranks[0] if ranks else 0
        case "R":
            return len(ranks) / len(relevant) if relevant else 0
        case "P":
            return len(ranks) / cut
        case "Success":
            return float(bool(ranks))
        case "MAP" | "AP":
            precisions = [n / rank for n, rank in enumerate(ranks, 1)]
            return sum(precisions) / len(relevant) if relevant else 0
        case "Judged":
            first = order[:cut]
            return len([docid for docid in first if docid in judged]) / len(first)
        case "nDCG":
            gains = [max(judged.get(docid, 0), 0) for docid in order[:cut]]
            best = sorted((max(grade, 0) for grade in judged.values()), reverse=True)
            if measure.cut:
                best = best[: measure.cut]
            found, ideal = (
                sum(gain / math.log2(rank + 1) for rank, gain in enumerate(row, 1))
                for row in (gains, best)
            )
            return found / ideal if ideal else 0


NAMES = ["RR", "RR@3", "RR(rel=2)@10", "nDCG", "nDCG@7", "R@5", "R(rel=3)@20", "P@7"]
NAMES += ["P(rel=2)@10", "MAP", "AP", "MAP(rel=2)", "AP@6", "Success@1"]
NAMES += ["Success(rel=3)@5", "Judged@10", "Judged@90"]


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition(name, contest):
    """One measure alone, and among all others."""
    qrels, runs = contest
    for run in runs.values():
        expected = {
            qid: slowly(measures.parse(name), qrels[qid], run[qid])
            if qid in run
            else 0.0
            for qid in qrels
        }
        assert per_query(qrels, run, [name])[name] == pytest.approx(expected)
        assert per_query(qrels, run, NAMES)[name] == pytest.approx(expected)


def ms_marco(qrels: str, run: str) -> float:
    """MS MARCO's MRR @10 as its script defines it, for files in TREC's format.

    The place of a document is its rank in the file; every document of the qrels is
    relevant; the mean is over the queries of the qrels.
    """
    relevant, ranked = {}, {}
    for line in qrels.splitlines():
        qid, _, docid, _ = line.split()
        relevant.setdefault(qid, []).append(docid)
    for line in run.splitlines():
        qid, _, docid, rank, _, _ = line.split()
        ranked.setdefault(qid, [None] * 1000)[int(rank) - 1] = docid
    total = 0
    for qid, docids in ranked.items():
        if qid in relevant:
            for place, docid in enumerate(docids[:10]):
                if docid in relevant[qid]:
                    total += 1 / (place + 1)
                    break
    return total / len(relevant)


def mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def test_equals_ms_marcos_script(contest, tmp_path):
    """Where no scores of a topic tie, which trec.write_run sees to."""
    qrels, runs = contest
    relevant = {
        qid: {docid: 1 for docid, grade in judged.items() if grade > 0}
        for qid, judged in qrels.items()
    }
    relevant = {qid: judged for qid, judged in relevant.items() if judged}
    trec.write_qrels(tmp_path / "qrels", relevant)
    for name, run in runs.items():
        trec.write_run(tmp_path / name, run, "t")
        found = per_query(relevant, trec.read_run(tmp_path / name), ["RR@10"])
        files = (tmp_path / "qrels").read_text(), (tmp_path / name).read_text()
        assert mean(found["RR@10"]) == pytest.approx(ms_marco(*files), abs=1e-9)
        assert ms_marco(*files) > 0.05


def test_ties_are_not_ordered_as_by_ms_marcos_script(tmp_path):
    """a is written first, and comes after b for trec_eval."""
    lines = "q Q0 a 1 2.0 t\nq Q0 b 2 2.0 t\n"
    (tmp_path / "run").write_text(lines)
    found = per_query({"q": {"a": 1}}, trec.read_run(tmp_path / "run"), ["RR@10"])
    assert ms_marco("q 0 a 1\n", lines) == 1
    assert found["RR@10"] == {"q": 0.5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MRR@10", "unknown measure 'MRR'; did you mean 'RR'?"),
        ("recall@10", "unknown measure 'recall'; there are RR, nDCG, R, P, MAP, AP"),
        ("ndcg_cut_10", "unknown measure 'ndcg_cut_10'"),
        ("RR@", "unknown measure 'RR@'; write FAMILY"),
        ("RR@0", "unknown measure 'RR@0'; write FAMILY"),
        ("nDCG@ten", "unknown measure 'nDCG@ten'; write FAMILY"),
        ("R(rel=0)@5", "unknown measure 'R(rel=0)@5'; write FAMILY"),
        ("R@5(rel=2)", "unknown measure 'R@5(rel=2)'; write FAMILY"),
        ("nDCG(rel=2)@10", "nDCG takes the grades as they are; leave out (rel=2)"),
        ("Judged(rel=1)@10", "whatever the grade; leave out (rel=1)"),
        ("R", "it needs a cut, such as R@10"),
        ("P(rel=2)", "it needs a cut, such as P(rel=2)@10"),
        ("Judged", "it needs a cut, such as Judged@10"),
    ],
)
def test_impossible_measures_are_refused(name, message):
    with pytest.raises(DenseHNError, match=re.escape(message)):
        per_query(QRELS, RUN, ["RR@10", name])


def test_topics_in_one_file_only_are_told(caplog):
    caplog.set_level("INFO", "dense_hn")
    scored = measures.score("it", QRELS, RUN, ["RR@10"])
    assert (scored.missing, scored.unjudged) == (1, 1)
    missing, unjudged = (record.getMessage() for record in caplog.records)
    assert missing.startswith(
        "it: 1 of 3 judged topics are not in the run, such as 'q3'"
    )
    assert unjudged.startswith(
        "it: 1 of 3 topics of the run are not judged, such as 'unj"
    )


def test_topics_without_a_relevant_document_are_told(caplog):
    """Of a measure's level; a warning where there is none at all."""
    caplog.set_level("INFO", "dense_hn")
    qrels = {"one": {"a": 1, "b": 0}, "none": {"a": 0}, "two": {"c": 2}}
    names = ["RR@10", "R(rel=2)@5", "P(rel=3)@5", "nDCG@10", "Judged@5"]
    measures.tell_without_relevant(qrels, names)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    text = (
        "%d of 3 topics have no document judged %d or more, such as '%s'; they count "
        "with 0 in %s"
    )
    # Without a measure of judgements, as for answers, there is nothing to say.
    measures.tell_without_relevant({"one": {}}, [])
    measures.tell_without_relevant({"one": {"a": 2}}, ["RR(rel=1)@10", "Judged@5"])
    assert len(said) == len(caplog.records)
    grades = "judgements go up to 2, and from 1 on all are relevant in RR@10; "
    assert said[0][0] == "INFO" and said[0][1].startswith(grades)
    assert said[1:] == [
        ("INFO", text % (1, 1, "none", "RR@10, nDCG@10")),
        ("INFO", text % (2, 2, "one", "R(rel=2)@5")),
        ("WARNING", text % (3, 3, "one", "P(rel=3)@5")),
    ]
    values = per_query(qrels, {qid: {"a": 2.0, "c": 1.0} for qid in qrels}, names)
    assert values["P(rel=3)@5"] == dict.fromkeys(qrels, 0.0)
    assert values["R(rel=2)@5"] == {"one": 0.0, "none": 0.0, "two": 1.0}


def test_a_run_of_other_topics_is_refused():
    with pytest.raises(DenseHNError, match="none of the 3 judged topics is in the run"):
        measures.score("other", QRELS, {"x": {"a": 1.0}}, ["RR@10"])


def test_t_test_by_its_formula():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(40), rng.random(40)
    gaps = (ours - theirs).tolist()
    average = sum(gaps) / 40
    variance = sum((gap - average) ** 2 for gap in gaps) / 39
    expected = 2 * stats.t.sf(abs(average) / math.sqrt(variance / 40), 39)
    assert significance.t_test(ours, theirs) == pytest.approx(expected)
    assert significance.t_test(ours, ours) == 1.0


def enumerated(gaps: list[float]) -> float:
    """The share of all signs whose sum is as far from 0 as the one that was seen."""
    seen = abs(sum(gaps))
    signs = itertools.product((1, -1), repeat=len(gaps))
    sums = [sum(s * g for s, g in zip(row, gaps, strict=True)) for row in signs]
    return sum(abs(one) >= seen for one in sums) / len(sums)


def test_randomisation_equals_full_enumeration():
    """Values in quarters, whose sums are exact and often tie."""
    rng = np.random.default_rng(2)
    for _ in range(5):
        ours, theirs = rng.integers(0, 5, (2, 10)) / 4
        expected = enumerated((ours - theirs).tolist())
        found = significance.randomisation_test(ours, theirs)
        assert found == pytest.approx(expected, abs=1e-12)
    # 10 topics that differ among 100: as for these alone.
    zeros = np.zeros(90)
    found = significance.randomisation_test(np.r_[ours, zeros], np.r_[theirs, zeros])
    assert found == pytest.approx(expected, abs=1e-12)


def test_randomisation_of_more_topics_is_near_enumeration():
    """16 topics: 65,536 ways, of which 10,000 are drawn, always the same."""
    rng = np.random.default_rng(3)
    ours, theirs = rng.integers(0, 9, (2, 16)) / 8 + [[0.125], [0]]
    expected = enumerated((ours - theirs).tolist())
    assert 0.05 < expected < 0.95
    found = significance.randomisation_test(ours, theirs)
    four_deviations = 4 * math.sqrt(expected * (1 - expected) / significance.FLIPS)
    # Twice the smaller tail, so twice its deviation at most.
    assert found == pytest.approx(expected, abs=2 * four_deviations)
    assert found == significance.randomisation_test(ours, theirs)


def test_nothing_to_tell_apart_has_p_one():
    one, other = np.array([0.5, 0.5, 1.0]), np.array([0.5, 0.5, 0.0])
    assert significance.randomisation_test(one, one) == 1.0
    assert significance.randomisation_test(one, other) == 1.0


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        # .005 · 4, .01 · 3, .03 · 2, and .04 · 1, which may not be below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    assert significance.holm(p) == pytest.approx(corrected)


def scored(name: str, values: list[float]) -> Scored:
    """A run with values of one measure."""
    by_topic = {f"q{n}": value for n, value in enumerate(values)}
    return Scored(name=name, missing=0, unjudged=0, values={"RR@10": by_topic})


RUNS = [
    scored("one", [0.1, 0.2, 0.3, 0.4]),
    scored("two", [0.2, 0.4, 0.3, 0.6]),
    scored("three", [0.3, 0.6, 0.8, 0.9]),
]


@pytest.mark.parametrize("test", significance.TESTS)
@pytest.mark.parametrize("baseline", [None, "two"])
def test_compare(test, baseline):
    compared = significance.compare(RUNS, test, baseline)
    values = {run.name: np.array([*run.values["RR@10"].values()]) for run in RUNS}
    pairs = {
        None: {"two": "one", "three": "two"},
        "two": {"one": "two", "three": "two"},
    }
    p = {
        ours: significance.TESTS[test].p(values[ours], values[theirs])
        for ours, theirs in pairs[baseline].items()
    }
    corrected = dict(zip(p, significance.holm(list(p.values())), strict=True))
    assert (compared.topics, compared.comparisons) == (4, 2)
    for row in compared.rows:
        cell = row.cells["RR@10"]
        assert cell.mean == pytest.approx(sum(values[row.name]) / 4)
        assert row.against == pairs[baseline].get(row.name)
        assert cell.p == p.get(row.name)
        assert cell.p_holm == corrected.get(row.name)
        if row.against is None:
            assert cell.difference is None
        else:
            expected = sum(values[row.name]) / 4 - sum(values[row.against]) / 4
            assert cell.difference == pytest.approx(expected)
    assert any(cell != p[name] for name, cell in corrected.items())


@pytest.fixture
def evaluate(contest, tmp_path, monkeypatch, capsys):
    """The command for the runs of the contest; returns what it printed."""
    qrels, runs = contest
    trec.write_qrels(tmp_path / "qrels", qrels)
    for name, run in runs.items():
        trec.write_run(tmp_path / f"{name}.txt", run, "t")

    def call(*arguments, paths=tuple(f"{name}.txt" for name in runs)):
        argv = ["evaluate", *arguments, "--qrels", "qrels", *paths]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", argv)
        command.main()
        return capsys.readouterr().out

    return call


ASKED = ["--measures", "RR@10", "MAP(rel=2)", "nDCG@10"]


def printed(row: dict, measure: str) -> tuple[str, ...]:
    """Mean, difference and p of a row of the JSON as a table has them."""
    cell = row["cells"][measure]
    if row["against"] is None:
        return (f"{cell['mean']:.4f}",)
    p = (
        "<.001"
        if cell["p_holm"] < 0.001
        else f"={cell['p_holm']:.3f}".replace("0.", ".")
    )
    return f"{cell['mean']:.4f}", f"{cell['difference']:+.4f}", f"p{p}"


def words(cell: str) -> tuple[str, ...]:
    """``0.1 (+0.2 p=.3)`` to its three words."""
    return tuple(cell.translate(str.maketrans("", "", "()*$")).split())


def test_text_and_markdown_hold_the_numbers(evaluate):
    whole = json.loads(evaluate(*ASKED, "--format", "json"))
    head, *lines, note = evaluate(*ASKED).splitlines()
    assert head.split() == ASKED[1:]
    starts = [head.index(measure) for measure in ASKED[1:]]
    for row, line in zip(whole["rows"], lines, strict=True):
        assert line[: starts[0]].strip() == row["name"]
        for start, measure in zip(starts, ASKED[1:], strict=True):
            assert words(line[start : start + 24]) == printed(row, measure)
    assert note.startswith(
        "30 topics. In brackets: difference to the row above, and p "
    )
    assert note.endswith(
        "of a paired t-test, Holm-corrected; comparisons per measure: 2."
    )

    head, rule, *lines, blank, again = evaluate(
        *ASKED, "--format", "markdown"
    ).splitlines()
    assert (blank, again) == ("", note)
    assert set(rule) == set("| -")
    bold = []
    for row, line in zip(whole["rows"], lines, strict=True):
        _, name, *cells, _ = line.split("|")
        assert name.strip() == row["name"]
        for measure, cell in zip(ASKED[1:], cells, strict=True):
            assert words(cell) == printed(row, measure)
            bold += [(row["name"], measure)] * ("**" in cell)
    best = [
        (max(whole["rows"], key=lambda row: row["cells"][m]["mean"])["name"], m)
        for m in ASKED[1:]
    ]
    assert sorted(bold) == sorted(best)


def test_latex(evaluate):
    whole = json.loads(evaluate(*ASKED, "--format", "json"))
    lines = evaluate(*ASKED, "--format", "latex").splitlines()
    assert lines[:2] == [r"\begin{tabular}{llll}", r"\toprule"]
    assert lines[3] == r"\midrule"
    assert lines[-4:-1] == [r"\bottomrule", r"\end{tabular}", ""]
    for row, line in zip(whole["rows"], lines[4:-4], strict=True):
        assert line.endswith(r" \\")
        name, *cells = line.removesuffix(r" \\").split(" & ")
        assert name == row["name"]
        for measure, cell in zip(ASKED[1:], cells, strict=True):
            plain = re.sub(r"\\textbf\{(.*?)\}", r"\1", cell)
            assert words(plain) == printed(row, measure)
    assert r"\textbf" in "".join(lines)


def test_names_are_escaped(evaluate):
    names = [r"a_b|c*%", r"[d]&#${}~^\ <e>", "plain"]
    asked = [*ASKED, "--names", *names, "--baseline", names[0]]
    rows = json.loads(evaluate(*asked, "--format", "json"))["rows"]
    assert [row["name"] for row in rows] == names
    markdown = evaluate(*asked, "--format", "markdown").splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown[:-2]]
    assert {len(row) for row in cells} == {4}
    back = [re.sub(r"\\(.)", r"\1", row[0].strip()) for row in cells[2:]]
    assert back == names
    assert r"difference to a\_b\|c\*%," in markdown[-1]

    latex = evaluate(*asked, "--format", "latex").splitlines()
    assert latex[4].startswith(r"a\_b$|$c{*}\% & ")
    assert latex[5].startswith(
        r"{[}d]\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} $<$e$>$ & "
    )
    assert r"difference to a\_b$|$c{*}\%," in latex[-1]


def test_per_query(evaluate, contest, tmp_path):
    qrels, runs = contest
    whole = json.loads(evaluate(*ASKED, "--format", "json", "--per_query", "out/q.tsv"))
    with open(tmp_path / "out" / "q.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["qid"], row["run"]) for row in rows] == [
        (qid, name) for name in runs for qid in qrels
    ]
    for row in whole["rows"]:
        for measure, cell in row["cells"].items():
            column = [float(r[measure]) for r in rows if r["run"] == row["name"]]
            assert sum(column) / 30 == pytest.approx(cell["mean"], abs=1e-12)


def test_one_run_is_not_compared(evaluate):
    lines = evaluate("--measures", "RR@10", paths=["good.txt"]).splitlines()
    assert len(lines) == 3
    assert "(" not in lines[1]
    assert lines[2] == "30 topics."


def test_the_randomisation_test_is_said(evaluate):
    note = evaluate(
        *ASKED, "--test", "randomisation", "--baseline", "good"
    ).splitlines()
    assert (
        "difference to good, and p of a paired randomisation test (10,000" in note[-1]
    )


def test_runs_of_the_same_file_name_keep_a_row_each(evaluate, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "good.txt").rename(tmp_path / "other" / "plain.txt")
    paths = ["plain.txt", "other/plain.txt"]
    rows = evaluate(paths=paths).splitlines()[1:3]
    assert [row.split()[0] for row in rows] == paths


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--names", "a", "b"], "2 names for 3 runs"),
        (["--names", "a", "b", "a"], "two runs are called 'a'"),
        (["--baseline", "god"], "unknown run 'god'; did you mean 'good'"),
        (["--measures", "MRR"], "unknown measure 'MRR'"),
        (["--per_query", "."], r"\.: is a folder"),
    ],
)
def test_impossible_calls_are_refused_before_a_run_is_read(
    arguments, message, evaluate, tmp_path
):
    (tmp_path / "better.txt").write_text("no run\n")
    with pytest.raises(DenseHNError, match=message):
        evaluate(*arguments)
