"""The README's table holds what was measured and nothing else."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def table(monkeypatch, tmp_path):
    import readme_table

    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    return readme_table


def write(folder, device: str, made_at: str, *arms) -> None:
    content = {"conditions": {"device": device}, "made_at": made_at, "arms": list(arms)}
    (folder / f"gpu-parnet-s-{device}.json").write_text(json.dumps(content))


def arm(name: str, p50_ms: float, precision: str = "fp32") -> dict:
    return {"name": name, "precision": precision, "p50_ms": p50_ms}


def test_nothing_was_measured(table):
    assert table._gpu_cells("parnet-s") == [table.NOT_YET, table.NOT_YET]
    assert table._gpu_conditions() == ""
    row = table._row("parnet-s", None)
    assert row.count(table.NOT_YET) == 8


def test_the_fastest_on_one_gpu_and_on_three(table, tmp_path):
    write(
        tmp_path,
        "h200",
        "2026-01-02",
        arm("tensorrt, one", 0.5),
        arm("tensorrt, one, auxiliary streams", 0.4),
        arm("tensorrt, streams, 1 GPU", 0.45),
        arm("tensorrt, streams, 2 GPUs", 0.1),
        arm("tensorrt, recompute, 3 GPUs", 0.3),
        arm("tensorrt, one", 0.05, "fp16"),
        arm("fused, CUDA graph", 0.01),
        {"name": "tensorrt, streams, 3 GPUs", "precision": "fp32", "failed": "out of memory"},
    )
    assert table._gpu_cells("parnet-s") == ["0.400 ms", "0.300 ms"]
    assert table._gpu_cells("parnet-m") == [table.NOT_YET, table.NOT_YET]
    assert table._gpu_conditions().endswith("host to host, on h200.")


def test_the_newest_counts_and_a_rehearsal_does_not(table, tmp_path):
    write(tmp_path, "h100", "2026-01-01", arm("tensorrt, one", 0.9))
    write(tmp_path, "h200", "2026-01-02", arm("tensorrt, one", 0.5))
    write(tmp_path, "cpu", "2026-01-03", arm("tensorrt, one", 0.0))
    assert table._gpu_cells("parnet-s") == ["0.500 ms", table.NOT_YET]
