"""Converters: a segment's graph into the file of another engine of the CPU, in a child process."""
