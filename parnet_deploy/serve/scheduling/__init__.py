"""Which request runs when, and with which others: bounded queue, batches, deadlines, workers."""
