import copy
import json

import pytest
import torch

from turnover.data import Rows
from turnover.runs import Run

TRAIN_IDS, TEST_IDS = range(100, 120), range(200, 206)


def instance(id, label, truth, score):
    return {"id": id, "label": label, "truth": truth, "score": score}


def point(epoch):
    names = ("seen_train", "unseen_train", "seen_test", "unseen_test", "full_test")
    return {"epoch": epoch, **{name: 2.0 / (epoch + i) for i, name in enumerate(names)}}


def variant(drop, unseen, test):
    losses = {"seen_train_loss": 0.01, "unseen_train_loss": unseen, "test_loss": test}
    found = {"mislabel_auc": 0.9, "precision_at_planted": 0.5}
    return {"drop": drop, "accuracy": 0.9, **losses, **found}


RESULTS = {
    "kind": "demo",
    "train": 20,
    "test": 6,
    "planted": 4,
    "accuracy_turnover": 0.931,
    "accuracy_dropout": 0.983,
    "seen_train_loss": 0.0074,
    "unseen_train_loss": 0.496,
    "test_loss": 0.469,
    "mislabel_auc": 0.99,
    "precision_at_planted": 0.75,
    "mislabel_auc_control": 0.999,
    "precision_at_planted_control": 1.0,
    "seconds": 61.2,
    "roc": {
        "turnover": {"fpr": [0.0, 0.0, 0.25, 1.0], "tpr": [0.0, 0.75, 1.0, 1.0]},
        "control": {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]},
    },
    "curves": [point(epoch) for epoch in range(1, 6)],
    "variants": [variant(0.0, 1.0, 0.66), variant(0.5, 0.5, 0.47)],
    "explanations": [
        {
            "query": 1,
            "id": 201,
            "label": 1,
            "predicted": 8,
            "loss": 3.1,
            "probability": 0.858,
            "helped_error": [instance(100, 8, 8, 4.02), instance(101, 8, 8, 3.1)],
            "harmed": [instance(102, 8, 1, -11.55), instance(103, 8, 8, -9.7)],
        }
    ],
    "suspects": [
        {"id": 104, "label": 1, "truth": 7, "unseen_loss": 16.5, "planted": True},
        {"id": 105, "label": 9, "truth": 9, "unseen_loss": 10.2, "planted": False},
    ],
    "audit": {"ok": True, "leaks": [], "crosstalk": [], "drift": None, "instances": 4},
    "cost": {"train_model_s": 24.74, "pairs": 1200},
}
OPTIONAL = sorted(RESULTS)
STRUCTURED = ["planted", "train", *(k for k in OPTIONAL if isinstance(RESULTS[k], dict | list))]


@pytest.fixture
def results():
    return copy.deepcopy(RESULTS)


def write_json(run, name, found):
    """What release 0.1 or another program may have left there."""
    run.write_text(name, json.dumps(found))


def leak(name="a", size=0.3, remedy="mask it", kind="Linear"):
    """A leak, as the leak check writes it."""
    found = {"parameter": name, "kind": kind, "shape": [3], "size_nats": size, "relative": 0.1}
    return {**found, "remedy": remedy}


def build_run(folder, results, channels=1):
    """A complete run folder with the given results and images of the given channels."""
    run = Run.create(folder, {"kind": "demo", "arguments": {"seed": 0}})
    for rows, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        ids = torch.tensor(list(ids))
        images = torch.rand(len(ids), channels, 8, 8)
        run.save_rows(rows, Rows({"image": images, "label": ids % 10}, ids))
    write_json(run, "results.json", results)
    masks = {"act": {"layer": 0, "units": 128, "seed": 0, "keep": 0.5}}
    return run.finish(masks=masks, data={"train": "ab" * 32})


@pytest.fixture
def make_run(tmp_path):
    def make(results, channels=1, name="run"):
        return build_run(tmp_path / name, results, channels)

    return make


ESCAPE = "\x1b[2J\x1b]0;title\x07\u202e"
HOSTILE = f"<script>alert('x')</script>[red]x[/red]{ESCAPE}\ud800"


def image(row, **more):
    """A row of the results of a run of images, as its commands write them."""
    label = ("cat", "dog")[row % 2]
    return {"id": 100 + row, "name": f"{label}/{row:03}.png", "label": label, **more}


def audited(row, **more):
    losses = {"unseen_loss": 3.0 - row / 10, "seen_loss": 0.1, "memorised": 2.9 - row / 10}
    copies = {"copies": -1, "conflict": False}
    return image(row, suggested="dog", suspect=True, p_label=0.05, **losses, **copies, **more)


AUDIT = {
    **{"row_word": "image", "train": 20, "test": 6, "finder": "a rule"},
    **{"suspected": 3, "suspected_test": 0.1, "copies": 2, "conflicts": 1},
    **{"unseen_train_loss": 0.9, "seen_train_loss": 0.1},
    "suspects": [audited(row) for row in range(3)],
    "memorised": [audited(row) for row in range(5)],
    "groups": [[audited(6), audited(7)], [audited(row) for row in (8, 10, 12, 14, 16, 18, 4)]],
}
PAIR = {"mean": 0.01, "low": -0.01, "high": 0.03, "p": 0.5, "p_seeds": 0.5}
CELL = {"fraction": 0.1, "removed": 2, "accuracy": 0.9, "accuracy_sd": 0.01, "loss": 0.3}
CLEANSED = {
    **{"row_word": "image", "train": 20, "target": 4, "test": 4, "seeds": 2, "trainings": 6},
    **{"arms": ["first-order"], "conclusion": "No significant gain."},
    "cells": [{**CELL, "arm": "x", "gain": PAIR, "over_random": None, "p": 0.5, "loss_sd": 0.1}],
    "harmful": [image(row, total=row - 4.0) for row in range(3)],
}
IMAGE_RESULTS = {
    **{"kind": "images", "row_word": "image", "train": 20, "test": 6, "accuracy_turnover": 0.8},
    "explanations": [
        {
            **{"query": 1, "id": 201, "name": "dog/t.png", "label": "dog", "predicted": "cat"},
            **{"loss": 2.0, "probability": 0.7},
            "helped_error": [image(0, score=0.5, z=4.0, p=0.001, q=0.03)],
            "harmed": [
                image(3, score=-1.0, z=-3.0, p=0.1, q=0.4),
                image(5, score=-0.25, z=-2.0, p=0.2, q=0.6, truth="cat"),
            ],
        }
    ],
}


def build_image_run(folder, images=None, results=IMAGE_RESULTS, audit=AUDIT, cleansed=CLEANSED):
    """A complete run of images, with names beside its rows, audited and cleansed."""
    run = Run.create(folder, {"kind": "images", "arguments": {"seed": 0}})
    for side, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        ids = torch.tensor(list(ids))
        made = torch.randint(0, 256, (len(ids), 3, 32, 32), dtype=torch.uint8)
        batch = {"image": made if images is None else images[: len(ids)], "label": ids % 2}
        run.save_rows(side, Rows(batch, ids))
        names = [f"{('cat', 'dog')[int(id) % 2]}/{int(id) - 100:03}.png" for id in ids]
        run.write_text(f"{side}.json", json.dumps({"name": names}))
    write_json(run, "results.json", results)
    for name, found in (("audit", audit), ("cleanse", cleansed)):
        write_json(run, f"{name}.json", found)
    return run.finish()


@pytest.fixture
def image_run(tmp_path):
    return build_image_run(tmp_path / "images")


def named(results, names):
    """The results with names in place of the numbers of classes, as runs of one's own have them."""
    if isinstance(results, list):
        return [named(part, names) for part in results]
    if not isinstance(results, dict):
        return results
    labels = {"label", "truth", "predicted", "suggested"}
    return {
        key: names[value] if key in labels and isinstance(value, int) else named(value, names)
        for key, value in results.items()
    }
