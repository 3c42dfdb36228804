"""Wing: controlled experiments."""
