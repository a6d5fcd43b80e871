"""Sweeps: a grid over options, each cell an ordinary run folder.

`files` reads a sweep, `cells` says how far each cell is, `work` trains and scores, `queue` is Optuna's list, `run`
starts the workers, `cost` is the dry run.
"""
