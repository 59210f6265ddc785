"""What a server says of itself."""

from __future__ import annotations

import re
import urllib.request

from tests.serve.load.processes import Running


def metric(running: Running, name: str, **labels: str) -> float:
    """The sum of what a metric is for these labels and any others; 0 if it was never counted."""
    url = f"http://{running.host}:{running.port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as response:
        page = response.read().decode()
    lines = re.findall(rf"^{name}({{.*}})? (\S+)$", page, flags=re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for found, value in lines if all(each in found for each in wanted))
