"""``tests.serve.load.serve_it`` with engines that fail now and then, once it is ready."""

from __future__ import annotations

import json
import sys

from parnet_deploy.runtime import opened
from tests.chaos.faulty import FaultyBackend
from tests.serve.load.serve_it import serve
from tests.soak.random_faults import RandomFaults

if __name__ == "__main__":
    faults = RandomFaults(seed=1)
    opened.load_backend = lambda name: FaultyBackend(faults)
    drained = serve(json.loads(sys.argv[1]), on_ready=lambda: setattr(faults, "on", True))
    print(json.dumps({"injected": faults.counts}), file=sys.stderr)  # the last line of its log
    sys.exit(not drained)
