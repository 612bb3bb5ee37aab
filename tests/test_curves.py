"""The table of training curves."""

from dense_hn.train import curves

ONE = """{"eval_RR@10": 0.25, "step": 0}
{"loss": 1.5, "step": 5}
{"eval_RR@10": 0.5, "eval_R@3": 0.75, "step": 10}
"""
TWO = """{"eval_RR@10": 0.4, "step": 0}
{"eval_RR@10": 0.125, "step": 20}
{"train_runtime": "1.0", "step": 20}
"""
TABLE = """\
RR@10       0       10       20
one    0.2500   0.5000*
two    0.4000            0.1250*

R@3        10
one    0.7500*
two

Columns are steps of each training; * is the best."""


def test_a_row_a_training_and_a_column_a_step(tmp_path):
    for name, text in (("one", ONE), ("two", TWO)):
        (tmp_path / name).write_text(text)
    measured = {name: curves.read(tmp_path / name) for name in ("one", "two")}
    assert measured["one"]["RR@10"] == {0: 0.25, 10: 0.5}
    assert curves.table(measured) == TABLE
