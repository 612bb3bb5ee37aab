"""What Pyserini opens, made from a vectors folder.

A form is one way to store the vectors: ``python -m dense_hn.export --form …``, see
``__main__.py``. Forms of faiss are named in ``faiss_index.py`` and written by
``folder.py``, those of Lucene in ``lucene.py``; both end with ``self_check.py`` on the
real Pyserini. ``jsonl.py`` writes vectors for the indexers of others.
"""
