"""From float32 part graphs to faster ones: ranges from real images, lower precision, gates."""
