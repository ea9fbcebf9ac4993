"""Scores from the linear model that a network is near its weights."""
