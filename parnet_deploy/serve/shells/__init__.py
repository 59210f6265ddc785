"""What both wires do alike: ask, count, write down, trace."""
