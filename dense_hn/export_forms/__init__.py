"""Passage vectors in the formats of others."""
