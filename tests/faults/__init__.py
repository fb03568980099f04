"""Faults of machines, files and people: each test causes one and compares the rows exactly."""
