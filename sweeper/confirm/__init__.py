"""Train a study's finalists again with new seeds, and say whether their difference is real."""
