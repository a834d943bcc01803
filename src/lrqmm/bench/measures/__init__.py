"""Measuring: errors, times and operation counts of methods on matrix files, one shard a process."""
