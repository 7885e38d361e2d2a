"""Data as plain arrays: readers, splits, batches. Knows nothing of minispike."""
