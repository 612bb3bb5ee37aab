"""Open-domain question answering: which passages hold an answer, as DPR counts it."""
