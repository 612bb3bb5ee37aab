"""Training: STAR, ADORE, and recipes that run the whole path."""
