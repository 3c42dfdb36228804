"""Controlled experiments: studies with seeds and a judge, scaling laws, attention heads, and the
checks that every variant must pass.
"""
