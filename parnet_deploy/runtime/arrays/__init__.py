"""What callers hand in and get back: arrays, addresses, streams of any library."""
