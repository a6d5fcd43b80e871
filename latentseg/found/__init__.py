"""A folder in place of a preset: what lies there, and the options that read it."""
