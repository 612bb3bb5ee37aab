"""What Pyserini opens, made from a vectors folder.

A form is one way to store the vectors: ``python -m dense_hn.export --form …``, see
``__main__.py``. Forms of faiss are named in ``faiss_index.py``; ``folder.py`` writes
them, and ends with ``self_check.py`` on the real Pyserini.
"""
