"""From files to batches: layouts and readers, splits, random views, batches, and the check before a run."""
