"""A traced call on the terminal."""

from __future__ import annotations

import json

import pytest

from parnet_deploy.cli.timeline_table import micros_text

QUICK = ("--rounds", "3", "--vs", "none")


def test_a_simulated_timeline_is_shown_and_called_so(built, invoke):
    invoke("build", "--gpus", "0,1,2", "--backend", "fake")
    result = invoke("bench", "--backend", "fake", "--timeline", *QUICK)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "timeline median of 20 traced calls, engines/digits/reports/timeline.svg" in text
    assert "critical path image in → stem0" in text
    assert "busy / wall time" in text
    assert "us: lane engines copies wait launch done gap before" in text
    assert "2/1 copies 0 " in text
    assert "…" not in text
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "! simulated devices: this timeline says nothing about any hardware" in text
    assert (built / "reports/timeline.svg").is_file()
    json.loads((built / "reports/timeline.json").read_text())


def test_json_has_the_timeline_only_if_it_was_asked_for(built, invoke):
    found = json.loads(invoke("bench", *QUICK, "--timeline", "--json").stdout)["report"]
    assert set(found["timeline"]) >= {
        *("wall_us", "overlap", "critical", "critical_split", "lanes", "simulated"),
    }
    assert found["timeline"]["plan"] == found["subject"]["plan"]
    without = json.loads(invoke("bench", *QUICK, "--json").stdout)["report"]
    assert without["timeline"] is None


@pytest.mark.parametrize(
    ("us", "text"), [(0.5, "0.500 us"), (0, "0 us"), (12.34, "12.3 us"), (2500, "2.50 ms")]
)
def test_micros_text(us, text):
    assert micros_text(us) == text
