"""Values, files and a run that an earlier version made, and that every later version must reproduce or read."""
