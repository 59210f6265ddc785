"""A contest: arms in processes of their own, checked, then timed in turns."""
