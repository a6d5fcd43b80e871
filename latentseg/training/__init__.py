"""Training: `trainer` takes steps, `loop` makes a run of them, `costs` and `choices` time them."""
