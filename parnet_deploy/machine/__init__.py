"""What machine this is: CPU, cores, GPUs, versions."""
