"""Running the trials of a study: in this process, or side by side on Ray."""
