"""The report of a benchmark for people: a verdict in words, and one HTML file that shows why."""
