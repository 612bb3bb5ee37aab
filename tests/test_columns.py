"""Columns of texts and tokens, against lists and dictionaries."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_hn import columns
from dense_hn.columns import Docids, Texts, Tokens

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5))


@pytest.fixture(autouse=True, scope="module")
def _short_pieces():
    """So that a few rows are several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "ROWS", 4)
        yield


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_texts_are_a_list_of_them(texts):
    column = Texts.of(texts)
    assert len(column) == len(texts)
    assert list(column) == texts
    assert column == texts
    assert texts == column
    assert column[1:] == texts[1:]
    assert [column[n] for n in range(-len(texts), len(texts))] == texts * 2
    assert column != [*texts, "more"]
    if texts:
        assert column != [*texts[:-1], texts[-1] + "x"]


@pytest.mark.parametrize("few", [False, True], ids=["hashes", "few hashes"])
@given(docids=TEXTS, others=TEXTS)
@settings(max_examples=100, deadline=None)
def test_docids_are_a_dictionary_of_rows(few, docids, others):
    """Also where many docids have the same hash."""
    first = {}
    for row, docid in enumerate(docids):
        first.setdefault(docid, row)
    with pytest.MonkeyPatch.context() as patch:
        if few:
            patch.setattr(
                columns,
                "_hashes",
                lambda found: np.array([hash(d) % 3 for d in found], np.int64),
            )
        column = Docids.of(docids)
        asked = docids + others
        assert column.rows(asked).tolist() == [first.get(d, -1) for d in asked]
        assert all((d in column) == (d in first) for d in asked)
        again = [row for row, docid in enumerate(docids) if first[docid] < row]
        assert column.again() == (again[0] if again else None)
    for docid in set(others) - first.keys():
        with pytest.raises(KeyError):
            column.row(docid)


def test_docids_know_their_rows_in_another_process():
    """Whose hashes of texts are others."""
    docids = Docids.of(f"d{n}" for n in range(4))
    assert docids.row("d3") == 3
    code = "import pickle, sys; d = pickle.load(sys.stdin.buffer); print(d.row('d3'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(docids),
        env=os.environ | {"PYTHONHASHSEED": "5"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [b"3"]


@given(st.lists(st.lists(st.integers(0, 65535), min_size=1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_tokens_come_back_from_a_file(tmp_path_factory, ids):
    for kind in (pa.uint16(), pa.uint32()):
        path = tmp_path_factory.mktemp("tokens") / "tokens"
        schema = pa.schema({"tokens": pa.large_list(kind)})
        columns.write(path, schema, ((part,) for part in columns.cut(ids)))
        tokens = Tokens(columns.read(path)["tokens"])
        assert [row.tolist() for row in tokens] == ids
        assert tokens.lengths.tolist() == [len(row) for row in ids]
        assert tokens[0].dtype == kind.to_pandas_dtype()
