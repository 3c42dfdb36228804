"""Wing: what a loss means: reference points, and how much of a text is new."""
