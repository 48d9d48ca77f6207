"""Measurements that anyone can repeat. Not tests: they take minutes to hours."""
