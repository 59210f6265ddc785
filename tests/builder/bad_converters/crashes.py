"""A converter that ends its process."""

import os
import signal


def convert(graph, output, *, precision):
    os.kill(os.getpid(), signal.SIGSEGV)
