"""Scores from masks on the units of one network: two-pass and first-order."""
