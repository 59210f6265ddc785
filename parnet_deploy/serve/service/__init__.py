"""What is asked of the models, whatever the wire: who answers, counts, hot swap."""
