import re
import tokenize

import pytest

from tests.shape.tree import committed_files, name, offenders

# The brackets let this file pass its own test.
LEFTOVERS = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(w[o]rk|r[o]{2}t|f[a]rm|h[o]me/\w+|t[m]p/bash_jobs)(/|\b)")

# One word per idea: the name that is not used, and the one that is.
OTHER_WORDS = {
    "Ghosts": "null ids",
    "GhostNull": "EmpiricalNull",
    "Subject": "ClassifierRun",
    "Towers": "SplitEnsemble",
    "build_towers": "build_split_ensemble",
    "climb": "hill_climb",
    "crossed": "two_way_interval",
    "example_id": "id",
    "example_ids": "ids",
    "fake_ids": "null_ids",
    "fit_towers": "fit_split_ensemble",
    "flip_mask": "unseen",
    "flipped_mask": "unseen",
    "flips": "unseen",
    "ghost": "null id",
    "ghost_ids": "null_ids",
    "ghosts": "null ids",
    "if_seen": "unseen",
    "influence_score": "score",
    "influence_scores": "scores",
    "keep_probability": "keep_rate",
    "masks_from": "first_masked_layer",
    "noun": "row_word",
    "probed": "sample_rows",
    "redrawn": "bootstrap_draws",
    "sample_id": "id",
    "sample_ids": "ids",
    "set_apart": "hold_out_rows",
    "settled": "resolved",
    "strangers": "unknown",
    "test_point": "query",
    "tower": "member",
    "towers": "members, pairs, or split_ensemble",
    "train_point": "instance",
}


def found(pattern):
    for path in committed_files() or pytest.skip("not a git checkout"):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        yield from (f"{name(path)}:{n}" for n, line in enumerate(lines, 1) if pattern.search(line))


def test_nothing_is_left_to_do():
    assert not list(found(LEFTOVERS))


def test_no_path_of_one_machine():
    assert not list(found(MACHINE_PATHS))


def other_words(path):
    with tokenize.open(path) as file:
        names = {t.string for t in tokenize.generate_tokens(file.readline)}
    return {other: OTHER_WORDS[other] for other in names & OTHER_WORDS.keys()}


def test_one_word_per_idea():
    assert not offenders(other_words)
