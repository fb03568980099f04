"""Measuring generators: images -> features -> scores -> events."""
