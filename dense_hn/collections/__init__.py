"""Collections: a corpus with topics and qrels, by original string ids."""
