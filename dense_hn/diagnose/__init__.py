"""What a model gets wrong, and what its static negatives have become: the paper's section 4."""
