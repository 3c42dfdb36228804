"""Wing: the learning path: exercises that answer back, and lessons."""
