"""Values, files and a run of an earlier version, which every later version must reproduce or read."""
