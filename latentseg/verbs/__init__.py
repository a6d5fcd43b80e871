"""Verbs of the command line in groups of their own; `cli` has the others."""
