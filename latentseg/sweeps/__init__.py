"""Sweeps: a grid over options, each cell an ordinary run folder.

`files` reads a sweep, `cells` says how far each cell is, `work` trains and scores, `run` starts the workers or tells
the commands for a scheduler, `cost` is the dry run.
"""
