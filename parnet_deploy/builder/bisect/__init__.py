"""Find the first part, then the first layer, where a backend leaves the reference."""
