"""The drawn street scenes: each one a pure function of seed and number, with its class ids."""
