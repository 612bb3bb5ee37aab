"""What a recipe did, in one page to open in a browser."""
