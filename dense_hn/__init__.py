"""Train dense retrievers with hard negatives (STAR, ADORE) for Pyserini."""

__version__ = "0.4.0"


class DenseHNError(Exception):
    """Something the user can mend: names the file, the line or id, and the fix."""
