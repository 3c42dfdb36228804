"""Wing: finished models, made faster."""
