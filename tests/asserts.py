"""Properties that many tests share, by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from turnover.scores import Scores

SCORES = ("values", "train_ids", "query_ids", "labels", "stderr", "about")


def parts_of(thing):
    """By name the parts that are compared: of a model its state, of scores their tensors."""
    if isinstance(thing, nn.Module):
        return thing.state_dict()
    if isinstance(thing, Scores):
        return {name: getattr(thing, name) for name in SCORES}
    if isinstance(thing, Tensor):
        return {"": thing}
    return thing if isinstance(thing, Mapping) else dict(enumerate(thing))


def same_bits(found, wanted):
    if not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
        return type(found) is type(wanted) and found == wanted
    alike = found.dtype == wanted.dtype and found.shape == wanted.shape
    bytes_of = [x.detach().cpu().contiguous().view(-1).view(torch.uint8) for x in (found, wanted)]
    return alike and torch.equal(*bytes_of)


def assert_same_bits(found, wanted):
    """Equal names, types, shapes and bits: of tensors, of several by name, of models or scores."""
    found, wanted = parts_of(found), parts_of(wanted)
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if not same_bits(found[name], wanted[name])]
    assert not different


def assert_refused(result, code, found):
    """Some text on standard error, nothing on standard output, no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.stderr
    assert found in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
