"""Exit codes of the command line; 0 is done."""

TOO_MANY_FAILED, WRONG_INPUT, CLUSTER_LOST, INTERRUPTED = 1, 2, 3, 130
