"""A trial's settings as the file of another trainer, what its result stands on, and its model."""
