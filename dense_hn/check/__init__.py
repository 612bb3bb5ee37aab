"""Whether training on a collection, and evaluating with it, is valid."""
