"""The model of workers that fail: cases that can be counted by hand."""

import numpy as np
import pytest

from benchmarks.workers import drawn, simulated

NEVER = np.empty(0)


def course(lengths, losses, **how):
    return simulated(lengths, [np.array(each) for each in losses], start=1.0, away=[5.0] * 9, **how)


def test_workers_share_the_queue():
    assert course([10, 10, 10], [NEVER]).seconds == 31
    assert course([10, 10, 10], [NEVER, NEVER]).seconds == 21
    assert course([10, 4, 4], [NEVER, NEVER]).seconds == 11


def test_a_lost_task_begins_again_when_its_worker_is_back():
    outcome = course([10], [[4.0]])
    # Lost at 4, away until 9, ready at 10, and 10 more.
    assert (outcome.seconds, outcome.lost, outcome.finished) == (20, 1, True)


def test_another_worker_takes_a_lost_task():
    assert course([10, 5], [[4.0], NEVER]).seconds == 16


def test_a_first_attempt_can_be_killed():
    assert course([10], [NEVER], killed={0: 0.5}).seconds == 22


def test_a_task_that_is_lost_three_times_ends_the_work():
    outcome = course([10], [[4.0, 12.0, 20.0]])
    assert not outcome.finished
    assert outcome.lost == 3


def test_draws_follow_their_seed_and_losses_cost_time():
    assert drawn(4, 0.5, 1) == drawn(4, 0.5, 1)
    assert drawn(4, 0.5, 1).seconds > drawn(4, 0.0, 1).seconds
    assert drawn(64, 0.0, 1).seconds < drawn(32, 0.0, 1).seconds
    assert drawn(1, 0.0, 0).seconds == pytest.approx(256 * 600, rel=0.1)
