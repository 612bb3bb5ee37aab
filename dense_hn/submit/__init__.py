"""Leaderboard packages: MS MARCO passage and document ranking, and TREC DL runs."""
