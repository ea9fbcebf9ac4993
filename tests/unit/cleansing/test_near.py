"""Near-copies: as by comparing every pair, told apart from copies, with their conflicts."""

import random

import pytest
import torch

from tests.reference.copies import near_by_hand, pictures_by_hand
from turnover.cleansing import (
    NearCopies,
    inspect_rows,
    near_pictures,
    near_sets,
    near_texts,
    overlap,
)
from turnover.cleansing._near_texts import jaccard, signatures

WORDS = [
    f"{a}{b}{c}" for a in ("ba", "ro", "mi", "ste") for b in "aeiou" for c in ("n", "lt", "sk")
]


def sentence(draw, words=20):
    return " ".join(draw.choice(WORDS) for _ in range(words))


def changed(text, draw, times):
    """The text with some letters replaced, put in or taken out."""
    letters = list(text)
    for _ in range(times):
        place = draw.randrange(len(letters))
        letters[place] = draw.choice(["", "x", letters[place] + "q"])
    return "".join(letters)


def corpus(seed, size=150):
    draw = random.Random(seed)
    texts = [sentence(draw, draw.randrange(4, 40)) for _ in range(size)]
    texts += [changed(draw.choice(texts), draw, draw.randrange(1, 8)) for _ in range(size)]
    return texts + draw.choices(texts, k=20)


def as_dict(found):
    pairs = map(tuple, found.pairs.sort(dim=1).values.tolist())
    return dict(zip(pairs, found.alike.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_near_texts_are_those_of_all_pairs(seed):
    texts = corpus(seed)
    found, expected = as_dict(near_texts(texts)), near_by_hand(texts)
    assert len(expected) > 50
    assert found == expected  # of some hundred pairs MinHash misses none; 2e-4 at the very border


def test_equal_hashes_estimate_jaccard():
    draw = random.Random(1)
    one = sentence(draw, 200)
    for times in (5, 20, 60):
        other = changed(one, draw, times)
        hashes = signatures([one, other], 5)
        truth = jaccard(one, other)
        spread = (truth * (1 - truth) / hashes.shape[1]) ** 0.5
        assert abs((hashes[0] == hashes[1]).mean() - truth) < 5 * spread


def test_hashes_of_a_text_do_not_hang_on_its_neighbours():
    texts = corpus(0)
    together, alone = signatures(texts, 5), signatures(texts[7:8], 5)
    assert (together[7] == alone[0]).all()


def test_short_texts_are_compared_for_being_equal_only():
    found = near_texts(["good movie", "good movies", "good movie"])
    assert found.content.tolist() == [0, 1, 0] and not len(found.pairs)


def test_chinese_texts_are_compared_by_fewer_letters():
    one = "这部电影的故事情节非常精彩而且演员们的表演也很好看"
    found = near_texts(
        [one, one.replace("非常", "十分"), "昨天的天气很冷我们在家里吃了一顿很好的晚饭没有出门"]
    )
    assert found.pairs.tolist() == [[0, 1]]


def test_thousands_of_texts_of_one_template_end_in_one_set_and_say_so():
    texts = [
        f"the temperature in room {i} was measured at noon by the same device" for i in range(600)
    ]
    found = near_texts(texts)
    sets, conflict = near_sets(found, torch.zeros(600, dtype=torch.int64))
    assert not found.complete
    assert sets.tolist() == [0] * 600 and not conflict.any()
    assert len(found.pairs) < 40_000  # of 179,700


def test_lone_halves_of_characters_and_empty_texts_are_only_texts():
    found = near_texts(["", "\ud800" * 30, "", "a b c"])
    assert found.content.tolist() == [0, 1, 0, 2] and not len(found.pairs)


def noisy(seed=0, size=60, side=24, channels=3):
    """Smooth pictures, and copies of them with noise, other brightness and other contrast."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, channels, 4, 4, generator=draw) * 200 + 20
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    noise = torch.randn(smooth.shape, generator=draw)
    kinds = [smooth, smooth + 4 * noise, 0.6 * smooth + 30, smooth + 25 * noise]
    return torch.cat(kinds).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_near_pictures_are_those_of_all_pairs(channels):
    pixels = noisy(channels=channels)
    found, expected = as_dict(near_pictures(pixels[:100], pixels[100:])), pictures_by_hand(pixels)
    assert len(expected) >= 120
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-12)  # float64 on both sides


def test_moved_pictures_and_pictures_of_one_colour_are_others():
    pixels = noisy(size=4)[:4]
    flat = torch.full((2, 3, 24, 24), 90, dtype=torch.uint8)
    flat[1, 0, 0, 0] = 91
    found = near_pictures(torch.cat([pixels, pixels.roll(8, dims=3), flat]))
    assert not len(found.pairs)


def test_small_pictures_are_compared_for_being_equal_only():
    small = noisy(side=8)
    assert not len(near_pictures(small).pairs)


def copies_of(pairs, content, alike=None):
    pairs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    alike = torch.full((len(pairs),), 0.9, dtype=torch.float64) if alike is None else alike
    return NearCopies(torch.tensor(content), pairs, alike, "they are alike")


def test_sets_hang_together_by_pairs_and_take_in_equal_copies():
    found = copies_of([[0, 1], [1, 2], [4, 5]], [0, 1, 2, 3, 0, 4, 5, 3])
    sets, conflict = near_sets(found, torch.tensor([0, 0, 1, 0, 0, 1, 1, 0]))
    assert sets.tolist() == [0, 0, 0, -1, 0, 1, 1, -1]  # row 3 and 7 are equal, and no near-copies
    assert conflict.tolist() == [False, True, True, False, False, False, False, False]


def test_near_copies_in_the_test_set_only_are_no_set():
    found = copies_of([[0, 1]], [0, 1])
    sets, conflict = near_sets(found, torch.tensor([0]))
    assert sets.tolist() == [-1] and not conflict.any()


def test_overlap_tells_equal_from_near_and_names_the_row_in_conflict():
    alike = torch.tensor([0.8, 0.9], dtype=torch.float64)
    found = copies_of([[0, 2], [1, 2]], [0, 1, 2, 0, 3], alike)
    shared = overlap(found, torch.tensor([0, 1]), torch.tensor([1, 0, 1]))
    assert shared.equal.tolist() == [False, True, False]
    assert shared.near.tolist() == [True, False, False]
    assert shared.conflict.tolist() == [True, False, False]
    assert shared.partner.tolist() == [0, 0, -1]  # 0.8 alike, but of another label
    assert shared.alike.tolist() == [0.8, 1.0, 0.0]


def test_numbers_conflict_only_where_they_are_far_apart():
    found = copies_of([[0, 1], [2, 3]], [0, 1, 2, 3])
    _, conflict = near_sets(found, torch.tensor([0.0, 0.3, 0.0, 0.9]))
    assert conflict.tolist() == [False, False, True, True]


def test_an_inspection_lists_sets_in_conflict_first():
    found = copies_of([[0, 1], [2, 3]], [0, 1, 2, 3])
    even = torch.full((4, 2), 0.5)
    labels = torch.tensor([0, 0, 0, 1])
    seen = inspect_rows(even, even, labels, found.content.tolist(), found)
    assert seen.near_groups() == [[2, 3], [0, 1]]
    assert seen.near_conflicts() == 1 and seen.groups() == []
    assert inspect_rows(even, even, labels, range(4)).near_groups() == []
