"""Short real runs whose fate is known from outside, and the traces that they left.

`python -m tests.labelled.make` trains them anew.
"""
