"""Runs scored against qrels: measures, significance, tables."""
