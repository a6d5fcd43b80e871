"""One `Model` for every verb: evaluate, predict, and what they need to read and write images and videos."""
