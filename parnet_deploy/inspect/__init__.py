"""What is in a deployment, and what differs between two; nothing here changes or computes."""
