"""Measures by hand, trec_eval's conventions, and the table."""

import math
import sys

import numpy as np
import pytest
import pytrec_eval
from scipy import stats

from dense_hn import DenseHNError, evaluate, trec

QRELS = {"q1": {"a": 1, "b": 2}, "q2": {"c": 1}, "q3": {"d": 1}}
RUN = {
    "q1": {"x": 9.0, "b": 8.0, "y": 7.0, "a": 6.0},
    "q2": {"x": 3.0, "y": 2.0, "c": 1.0},
    "unjudged": {"a": 1.0},
}


def test_measures_by_hand():
    """q3 is judged and not in the run: it counts, with 0."""
    assert evaluate.per_query(QRELS, RUN, "RR@10") == {
        "q1": pytest.approx(1 / 2),
        "q2": pytest.approx(1 / 3),
        "q3": 0.0,
    }
    assert evaluate.per_query(QRELS, RUN, "RR@2") == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    assert evaluate.per_query(QRELS, RUN, "R@2") == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    gain = 2 / np.log2(3) + 1 / np.log2(5)
    ideal = 2 + 1 / np.log2(3)
    ndcg = evaluate.per_query(QRELS, RUN, "nDCG@10")
    assert ndcg["q1"] == pytest.approx(gain / ideal)
    assert ndcg["q2"] == pytest.approx(1 / 2)


def test_equals_trec_eval_on_random_runs_with_ties():
    rng = np.random.default_rng(5)
    qrels, run = {}, {}
    for q in range(30):
        docids = [f"d{n}" for n in rng.permutation(60)]
        qrels[f"q{q}"] = {d: int(rng.integers(0, 4)) for d in docids[:20]}
        qrels[f"q{q}"][docids[0]] = 1
        run[f"q{q}"] = {d: float(rng.integers(0, 12)) for d in docids[10:50]}
    theirs = pytrec_eval.RelevanceEvaluator(
        qrels, {"recip_rank", "ndcg_cut.7", "recall.9"}
    ).evaluate(run)
    for measure, name in [("RR@60", "recip_rank"), ("nDCG@7", "ndcg_cut_7")] + [
        ("R@9", "recall_9")
    ]:
        ours = evaluate.per_query(qrels, run, measure)
        assert ours == {q: pytest.approx(theirs[q][name]) for q in qrels}
    # RR@k is recip_rank where that is 1/k or more, and 0 below.
    for q, value in evaluate.per_query(qrels, run, "RR@3").items():
        whole = theirs[q]["recip_rank"]
        assert value == pytest.approx(whole if whole > 0.3 else 0)


def test_compare_and_table():
    better = RUN | {"q3": {"d": 5.0}, "q2": {"c": 9.0}}
    first, second = evaluate.compare(QRELS, {"A": RUN, "B": better}, ["RR@10"])
    assert first["missing"] == 1
    assert first["RR@10"]["mean"] == pytest.approx((1 / 2 + 1 / 3) / 3)
    assert first["RR@10"]["difference"] is None
    assert second["RR@10"]["difference"] == pytest.approx((2 / 3 + 1) / 3)
    expected = stats.ttest_1samp([0, 2 / 3, 1], 0).pvalue
    assert second["RR@10"]["p"] == pytest.approx(expected)
    text = evaluate.table([first, second])
    assert "A  0.2778" in text
    assert f"B  0.8333 (+0.5556 p={expected:.3f}".replace("p=0", "p=") in text
    assert "3 topics" in text


def test_runs_of_the_same_file_name_keep_a_row_each(tmp_path, monkeypatch, capsys):
    for folder in ("one", "two"):
        trec.write_run(tmp_path / folder / "star.txt", RUN, "t")
    trec.write_qrels(tmp_path / "qrels", QRELS)
    runs = [str(tmp_path / folder / "star.txt") for folder in ("one", "two")]
    arguments = ["evaluate", "--qrels", str(tmp_path / "qrels"), *runs]
    monkeypatch.setattr(sys, "argv", arguments)
    evaluate.main()
    rows = capsys.readouterr().out.splitlines()[1:3]
    assert [row.split()[0] for row in rows] == runs


def test_equal_runs_have_p_one():
    rows = evaluate.compare(QRELS, {"A": RUN, "B": RUN}, ["R@100"])
    assert rows[1]["R@100"]["difference"] == 0.0
    assert rows[1]["R@100"]["p"] == 1.0


@pytest.mark.parametrize("measure", ["MRR", "RR@", "RR@0", "P@10", "nDCG@ten"])
def test_unknown_measures_are_refused(measure):
    with pytest.raises(DenseHNError, match="unknown measure"):
        evaluate.per_query(QRELS, RUN, measure)


def test_a_level_makes_lower_grades_not_relevant():
    """By hand: a (grade 1) is first and b (grade 2) second; c (grade 2) is not found."""
    qrels, run = {"q": {"a": 1, "b": 2, "c": 2}}, {"q": {"a": 2.0, "b": 1.0}}
    assert evaluate.per_query(qrels, run, "RR@10") == {"q": 1.0}
    assert evaluate.per_query(qrels, run, "RR@10", level=2) == {"q": 0.5}
    assert evaluate.per_query(qrels, run, "R@10") == {"q": pytest.approx(2 / 3)}
    assert evaluate.per_query(qrels, run, "R@10", level=2) == {"q": 0.5}
    ndcg = (1 + 2 / math.log2(3)) / (2 + 2 / math.log2(3) + 1 / 2)
    for level in (1, 2):
        graded = evaluate.per_query(qrels, run, "nDCG@10", level)
        assert graded == {"q": pytest.approx(ndcg)}


def test_a_run_of_other_topics_is_refused():
    with pytest.raises(DenseHNError, match="none of the 3 judged topics is in the run"):
        evaluate.compare(QRELS, {"other": {"x": {"a": 1.0}}})
