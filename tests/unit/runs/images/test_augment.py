"""How a picture is moved depends on its id and the seed of the epoch, and on nothing else."""

import pytest
import torch

from turnover.runs.images._augment import augmented

IDS = torch.tensor([3, 10**15, -7, 12, 0, 99])


def pictures(rows=6, channels=3, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, channels, size, size), generator=generator).byte()


def slowly(image, ids, seed):
    """The same, picture by picture: cut from a frame, mirrored."""
    from turnover.masks import mask

    moved = []
    for picture, id in zip(image, ids, strict=True):
        bits = mask(id[None], 17, seed=seed, layer=2**31 - 1)[0].tolist()
        numbers = [sum(bit << i for i, bit in enumerate(bits[a : a + 8])) for a in (0, 8)]
        channels, size = picture.shape[:2]
        most = size // 8
        down, right = (number * (2 * most + 1) // 256 for number in numbers)
        framed = torch.full((channels, size + 2 * most, size + 2 * most), 128).byte()
        framed[:, most : most + size, most : most + size] = picture
        cut = framed[:, down : down + size, right : right + size]
        moved.append(cut.flip(2) if bits[16] and channels == 3 else cut)
    return torch.stack(moved)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_it_is_what_the_slow_way_gives(channels, size):
    image = pictures(channels=channels, size=size)
    assert torch.equal(augmented(image, IDS, 5), slowly(image, IDS, 5))


def test_it_depends_on_no_other_picture():
    image, order = pictures(), torch.tensor([4, 1, 3])
    whole, part = augmented(image, IDS, 5), augmented(image[order], IDS[order], 5)
    assert torch.equal(whole[order], part)


def test_it_draws_nothing():
    before = torch.get_rng_state()
    augmented(pictures(), IDS, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_is_another():
    image = pictures()
    assert torch.equal(augmented(image, IDS, 5), augmented(image, IDS, 5))
    assert not torch.equal(augmented(image, IDS, 5), augmented(image, IDS, 6))


def test_shifts_and_mirrors_are_as_likely_as_they_should_be():
    count = 4000
    column = torch.arange(8, dtype=torch.uint8).expand(3, 8, 8)
    moved = augmented(column.expand(count, 3, 8, 8), torch.arange(count), 0)
    middle = moved[:, 0, 4].int()
    mirrored = (middle[:, 4] - middle[:, 3]) < 0
    shift = middle[:, 4] - torch.where(mirrored, 3, 4)
    # Within four standard deviations of one half, and of one third.
    assert abs(mirrored.float().mean() - 0.5) < 0.032
    for step in (-1, 0, 1):
        assert abs((shift == step).float().mean() - 1 / 3) < 0.030
