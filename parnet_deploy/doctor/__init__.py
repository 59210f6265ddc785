"""What this machine can run, and the fix for what it cannot."""
