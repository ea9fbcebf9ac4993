"""Memory of a split ensemble of LoRA: eight members beside one, each in a process of its own.

    python -m experiments.adapters_memory --json experiments/results/adapters_memory.json

all-MiniLM-L6-v2 with LoRA of rank 8 in its last two blocks; training steps with AdamW on 16 rows
of 64 tokens. "own" is what members have beside the frozen base; "peak" is the resident memory of a
process, of which "empty" is that of a process with the same packages and no model; the median, the
least and the most of several processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks._machine import describe, peak_mb

COUNTS, PROCESSES = (0, 1, 2, 8), 5


def measured(members: int) -> dict[str, float]:
    """Of one process: peak in MB, and megabytes of tensors that are shared and own."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification

    from turnover import hf, seen
    from turnover.runs.text._encoders import source_of

    torch.set_num_threads(1)
    if not members:
        return {"peak": peak_mb()}
    base = AutoModelForSequenceClassification.from_pretrained(source_of("minilm"), num_labels=2)
    lora = LoraConfig(
        task_type="SEQ_CLS", r=8, target_modules=["query", "value"], layers_to_transform=[4, 5]
    )
    tokens = torch.randint(1000, 20000, (16, 64))
    batch = {"input_ids": tokens, "labels": torch.arange(16) % 2}
    if members == 1:
        model: torch.nn.Module = hf.Member.of(base, lora, 0).train()
    else:
        model = hf.split_ensemble(base, lora, pairs=members // 2).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        if members == 1:
            model(**batch).loss.backward()
        else:
            with seen(model, range(16)):
                model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    own = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    shared = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    return {"peak": peak_mb(), "own": own / 2**20, "shared": shared / 2**20}


def apart(members: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "experiments.adapters_memory", "--members", str(members)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--members", type=int)
    given = parser.parse_args()
    if given.members is not None:
        print(json.dumps(measured(given.members)))
        return
    rows = []
    for members in COUNTS:
        found = [apart(members) for _ in range(PROCESSES)]
        peaks = [one["peak"] for one in found]
        told = {**found[0], "peak": statistics.median(peaks)}
        told |= {"least": min(peaks), "most": max(peaks)}
        rows.append({"members": members, **{name: round(mb, 1) for name, mb in told.items()}})
        print(rows[-1], flush=True)
    peaks = {row["members"]: row["peak"] for row in rows}
    ratio = peaks[8] / peaks[1]
    without = (peaks[8] - peaks[0]) / (peaks[1] - peaks[0])
    result = {
        "rows": rows,
        "processes": PROCESSES,
        "ratio of peaks": round(ratio, 3),
        "ratio without the packages": round(without, 3),
        "machine": describe(all=0),
    }
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
