"""Predictions as proposals for annotation tools, in the formats that the tools import."""
