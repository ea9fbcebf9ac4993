import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.reports.conftest import build_image_run
from turnover.data import Rows
from turnover.errors import RunError
from turnover.reports import Pictures, build_report, render_html
from turnover.reports.data._pictures import shrink
from turnover.runs import Run


def run_of(folder, images):
    run = Run.create(folder, {"kind": "images"})
    ids = torch.arange(len(images)) + 7
    run.save_rows("train", Rows({"image": images, "label": ids % 2}, ids))
    return run


@pytest.mark.parametrize("side", [8, 28, 32, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_images_of_all_kinds_are_shown(tmp_path, side, channels, dtype):
    levels = torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8)
    images = levels if dtype == torch.uint8 else (levels.float() / 255).to(dtype)
    shown = Pictures.of(run_of(tmp_path / "run", images), "train").show(8)
    assert shown.shape == (side, side) if channels == 1 else (side, side, 3)
    expected = levels[1].permute(1, 2, 0).numpy().reshape(shown.shape)
    # Halves have eleven bits, more than the eight of a level.
    assert np.array_equal(shown, expected)


def test_names_beside_the_rows_hide_no_pictures(tmp_path):
    run = build_image_run(tmp_path / "run")
    (explanation,) = build_report(run).explanations
    assert explanation.query.pixels.shape == (32, 32, 3)
    assert explanation.harmed[0].name == "dog/003.png"


def test_rows_without_images_have_no_pictures(tmp_path):
    run = Run.create(tmp_path / "run", {"kind": "text"})
    run.save_rows("train", Rows({"feature": torch.rand(3, 5)}, torch.arange(3)))
    assert Pictures.of(run, "train") is None
    assert Pictures.of(run, "test") is None


def test_rows_are_read_in_the_order_asked(tmp_path):
    images = torch.arange(600, dtype=torch.float32).view(600, 1, 1, 1) % 256 / 255
    rows = [599, 0, 3, *range(300)]
    found = Pictures.of(run_of(tmp_path / "run", images), "train").read(rows, 64)
    assert found[:, 0, 0, 0].tolist() == [row % 256 for row in rows]


def test_only_the_rows_asked_for_are_read(tmp_path, monkeypatch):
    run, asked = run_of(tmp_path / "run", torch.rand(50, 3, 8, 8)), []
    pictures = Pictures.of(run, "train")
    monkeypatch.setattr(Run, "load_rows", lambda *a: asked.append(a))
    monkeypatch.setattr("safetensors.torch.load_file", lambda *a: asked.append(a))
    pictures.show(20)
    assert not asked


def test_large_images_become_means_of_their_areas():
    images = torch.randint(0, 256, (2, 3, 64, 128), dtype=torch.uint8)
    found = shrink(images, 32)
    expected = images.float().view(2, 3, 16, 4, 32, 4).mean(dim=(3, 5)).round()
    # A mean halfway between two levels may be rounded to either.
    assert (found.float() - expected).abs().max() <= 1


def test_values_outside_of_the_range_are_clipped(tmp_path):
    run = run_of(tmp_path / "run", torch.tensor([-1.0, 2.0]).view(1, 1, 1, 2).repeat(1, 1, 8, 4))
    assert Pictures.of(run, "train").show(7)[0, :2].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(20, 3, 8, 8, dtype=torch.int64), "neither uint8"),
        (torch.zeros(20, 3, 8, 8, dtype=torch.bool), "neither uint8"),
        (torch.zeros(20, 8, 8), "not \\[rows, 1 or 3 channels"),
        (torch.zeros(20, 8, 8, 3, dtype=torch.uint8), "not \\[rows, 1 or 3 channels"),
        (torch.zeros(20, 2, 8, 8), "not \\[rows, 1 or 3 channels"),
        (torch.zeros(20, 3, 0, 8), "not \\[rows, 1 or 3 channels"),
        (torch.full((20, 3, 8, 8), torch.nan), "NaN or infinite"),
        (torch.full((20, 3, 8, 8), torch.inf), "NaN or infinite"),
    ],
)
def test_damaged_images_are_a_run_error(tmp_path, images, says):
    pytest.importorskip("jinja2")
    run = build_image_run(tmp_path / "run", images)
    with pytest.raises(RunError, match=says):
        render_html(run)


def test_a_row_with_nan_is_named(tmp_path):
    images = torch.zeros(5, 1, 8, 8)
    images[3, 0, 4, 4] = torch.nan
    pictures = Pictures.of(run_of(tmp_path / "run", images), "train")
    assert pictures.show(7).shape == (8, 8)
    with pytest.raises(RunError, match="row 3 of"):
        pictures.read([0, 3], 64)


@pytest.mark.parametrize("ids", [torch.arange(4), torch.rand(5), None])
def test_ids_that_do_not_fit_are_a_run_error(tmp_path, ids):
    from safetensors.torch import save_file

    run = run_of(tmp_path / "run", torch.zeros(5, 1, 8, 8))
    more = {} if ids is None else {"id": ids}
    save_file({"image": torch.zeros(5, 1, 8, 8), **more}, run.folder / "train.safetensors")
    with pytest.raises(RunError, match=r"train\.safetensors"):
        Pictures.of(run, "train")


def test_a_truncated_or_lying_file_is_a_run_error(tmp_path):
    run = run_of(tmp_path / "run", torch.zeros(5, 1, 8, 8))
    path = run.folder / "train.safetensors"
    whole = path.read_bytes()
    header = {"image": {"dtype": "U8", "shape": [9, 3, 9, 9], "data_offsets": [0, 4]}}
    lying = json.dumps(header).encode()
    for data in (whole[:-9], whole[:4], b"", struct.pack("<Q", len(lying)) + lying + b"1234"):
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"train\.safetensors"):
            Pictures.of(run, "train")


def test_an_unknown_id_is_a_run_error(tmp_path, image_run):
    results = image_run.results()
    (mistake,) = results.explanations
    image_run.save(replace(results, explanations=(replace(mistake, id=10**9),)))
    with pytest.raises(RunError, match="no image with id"):
        build_report(image_run)
