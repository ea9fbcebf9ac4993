"""Judges scores by the metrics of quanda (Bareeva et al. 2024) and of dattri (Deng et al. 2024).

A process of its own, as all peers are: ``python -m benchmarks.peers.quanda --case FOLDER``. The
case's first network is what is judged; beside it lie

    judge.json           {"kind": ..., "planted": [...], "recipe": {...}, "subsets": S}
    scores.safetensors   estimator → [query, train]; of the kind "mislabel": → [train], on itself
    subclass.safetensors finer labels of training rows and queries, of the kind "subclass"

and ``judged.json`` is written there. Of the kind "clean" quanda draws the subsets and trains on
them with its own Trainer. ``truth.safetensors`` keeps what these networks say, and
``rivals.safetensors`` the scores of quanda's own explainers, with the settings they have there.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.peers._case import Case, build, load_case

_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):  # torchvision of the index, beside a torch for CPUs, lacks them
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from dattri.metric import lds as dattri_lds, mislabel_detection_auc
from quanda.explainers import Explainer, RandomExplainer
from quanda.explainers.wrappers import (
    TRAK,
    CaptumSimilarity,
    CaptumTracInCPFast,
    Kronfluence,
)
from quanda.explainers.wrappers.kronfluence_tasks import ImageClassificationTask
from quanda.metrics.downstream_eval import (
    ClassDetectionMetric,
    MislabelingDetectionMetric,
    ShortcutDetectionMetric,
    SubclassDetectionMetric,
)
from quanda.metrics.ground_truth import LinearDatamodelingMetric
from quanda.metrics.heuristics import (
    ModelRandomizationMetric,
    TopKCardinalityMetric,
)
from quanda.utils.training import Trainer

K = 5
SCALE = 1e6  # quanda adds 0.0001 times its number to each row's score, so that no two are equal
PACKAGES = ("quanda", "dattri", "captum", "traker", "torch", "numpy")
Scores = dict[str, Tensor]
Judged = dict[str, dict[str, float]]


class TurnoverExplainer(Explainer):
    """The gradient kernel of a network, as quanda's explainers are."""

    accepted_tasks = ["image_classification"]  # noqa: RUF012 (as in the base class)

    def __init__(self, model: torch.nn.Module, train_dataset: TensorDataset, **how: Any) -> None:
        import turnover

        super().__init__(model, train_dataset, **how)
        self.load_last_checkpoint()
        x, y = (torch.stack(part) for part in zip(*train_dataset, strict=True))
        rows = turnover.Rows((x, torch.as_tensor(y)))

        def loss(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

        self.fitted = turnover.GradientKernel(model, loss).fit(rows)

    def explain(self, test_data: Tensor, targets: list[int] | Tensor) -> Tensor:
        """Scores [query, train], positive = helped."""
        scores: Tensor = self.fitted.scores((test_data, torch.as_tensor(targets))).values
        return scores


def judge(folder: Path) -> dict[str, Any]:
    """What the metrics of the case's kind say of each estimator's scores."""
    case = load_case(folder)
    about = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    scores = load_file(folder / "scores.safetensors")
    found = {"clean": clean, "mislabel": mislabel, "shortcut": shortcut, "subclass": subclass}
    return found[about["kind"]](case, scores, about, folder)


def clean(case: Case, scores: Scores, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Linear datamodeling score, class detection, cardinality, randomised weights."""
    (model,) = case.models()
    data = TensorDataset(*case.train)
    rivals, skipped = explain_by_quanda(case, model, folder)
    everything = scores | rivals
    x, y = case.queries
    judged: Judged = {name: {} for name in everything}
    metric, margins = trained(case, data, about)
    members = torch.zeros(len(metric.subset_ids), len(data), dtype=torch.bool)
    for row, subset in zip(members, metric.subset_ids, strict=True):
        row[subset] = True
    save_file({"members": members, "margins": margins}, folder / "truth.safetensors")
    indices = torch.tensor(metric.subset_ids)
    for name, values in everything.items():
        metric.reset()
        metric.update(explanations=values, test_targets=y, test_data=x)
        judged[name]["quanda lds"] = metric.compute()["score"]
        judged[name]["dattri lds"] = float(dattri_lds(values.T, (margins, indices))[0].mean())
        by_class = ClassDetectionMetric(model, data, s=K)
        by_class.update(explanations=values, test_targets=y)
        judged[name]["quanda class detection"] = by_class.compute()["score"]
        many = TopKCardinalityMetric(model, data, top_k=K)
        many.update(explanations=values)
        judged[name]["quanda cardinality"] = many.compute()["score"]
    return {"judged": judged, "skipped": skipped, "randomised": randomised(case, model, data)}


def trained(
    case: Case, data: TensorDataset, about: dict[str, Any]
) -> tuple[LinearDatamodelingMetric, Tensor]:
    """quanda's metric after its own trainings on subsets, and the margins [subset, query]."""
    recipe = about["recipe"]
    trainer = Trainer(
        optimizer=torch.optim.SGD,
        lr=recipe["lr"],
        max_epochs=recipe["epochs"],
        criterion=torch.nn.CrossEntropyLoss(),
        optimizer_kwargs={"momentum": recipe["momentum"], "weight_decay": recipe["decay"]},
        logger=False,
        enable_progress_bar=False,
    )
    torch.manual_seed(0)
    metric = LinearDatamodelingMetric(
        build(case.model),
        data,
        trainer,
        m=about["subsets"],
        batch_size=recipe["batch"],
        cache_dir=tempfile.mkdtemp(),
    )
    x, y = case.queries
    margins = []
    with torch.no_grad():
        for number in range(metric.m):
            logits = metric.load_counterfactual_model(number).eval()(x)
            own = logits.gather(1, y[:, None])[:, 0]
            others = logits.scatter(1, y[:, None], float("-inf")).logsumexp(dim=1)
            margins.append(own - others)
    return metric, torch.stack(margins)


def explain_by_quanda(
    case: Case, model: torch.nn.Module, folder: Path
) -> tuple[Scores, dict[str, str]]:
    """Scores of explainers that quanda wraps, and why some have none."""
    data, (x, y), place = TensorDataset(*case.train), case.queries, tempfile.mkdtemp()
    weights = os.path.join(place, "model.pt")
    torch.save(model.state_dict(), weights)
    last = [name for name, _ in model.named_children()][-2]
    named: dict[str, Callable[[], Explainer]] = {
        "quanda random": lambda: RandomExplainer(model=model, train_dataset=data, seed=0),
        "quanda captum similarity": lambda: CaptumSimilarity(
            *(model, data, "similarity", last), cache_dir=place, batch_size=64
        ),
        "quanda TRAK": lambda: TRAK(model, data, "trak", cache_dir=place, proj_dim=512),
        "quanda kronfluence": lambda: Kronfluence(
            *(model, ImageClassificationTask(), data), batch_size=64, cache_dir=place
        ),
        "quanda captum TracInCPFast": lambda: CaptumTracInCPFast(
            *(model, list(model.children())[-1], data, weights), batch_size=64
        ),
    }
    found, skipped = {}, {}
    for name, make in named.items():
        try:
            values = torch.as_tensor(make().explain(test_data=x, targets=y)).detach().float()
            if values.shape != (len(y), len(data)) or not torch.isfinite(values).all():
                raise ValueError(f"scores of shape {list(values.shape)}, or not finite")
            found[name] = values.contiguous()
        except Exception as error:  # a rival that fails is a row with its reason
            skipped[name] = f"{type(error).__name__}: {error}"[:300]
    save_file(found, folder / "rivals.safetensors")
    return found, skipped


def randomised(case: Case, model: torch.nn.Module, data: TensorDataset) -> dict[str, float]:
    """Rank correlation with the scores of a network with random weights; low is better."""
    (x, y), place = case.queries, tempfile.mkdtemp()
    weights = os.path.join(place, "model.pt")
    torch.save(model.state_dict(), weights)
    metric = ModelRandomizationMetric(model, "kernel", place, data, weights, TurnoverExplainer)
    metric.update(TurnoverExplainer(model, data).explain(x, y), test_data=x, test_targets=y)
    return {"gradient kernel, plain network": metric.compute()["score"]}


def mislabel(case: Case, scores: Scores, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """How soon are planted label errors found, from the largest score of a row on itself?"""
    (model,) = case.models()
    data, planted = TensorDataset(*case.train), about["planted"]
    marks = torch.zeros(len(data), dtype=torch.bool)
    marks[planted] = True
    judged: Judged = {}
    for name, own in scores.items():
        as_it_is, scaled = (
            MislabelingDetectionMetric(
                model, data, planted, precomputed_self_influence=factor * own
            ).compute()["score"]
            for factor in (1, SCALE)
        )
        judged[name] = {
            "quanda mislabeling detection": scaled,
            "quanda mislabeling detection, unscaled": as_it_is,
            "dattri mislabel AUC": float(mislabel_detection_auc(own, marks)[0]),
        }
    return {"judged": judged}


def shortcut(case: Case, scores: Scores, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Are the training rows found that taught the network a mark in place of a class?"""
    (model,) = case.models()
    data, (x, y) = TensorDataset(*case.train), case.queries
    judged: Judged = {}
    for name, values in scores.items():
        metric = ShortcutDetectionMetric(model, data, about["planted"], about["class"])
        metric.update(values, test_data=x, test_labels=y)
        judged[name] = {"quanda shortcut detection": metric.compute()["score"]}
    asked = len(metric.auprc_scores)
    return {"judged": judged, "asked": asked}


def subclass(case: Case, scores: Scores, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of a network that learned coarse classes: have the strongest rows the query's fine one?"""
    (model,) = case.models()
    data, fine = TensorDataset(*case.train), load_file(folder / "subclass.safetensors")
    judged: Judged = {}
    for name, values in scores.items():
        metric = SubclassDetectionMetric(model, data, fine["train"], s=K)
        metric.update(values, test_targets=fine["queries"])
        judged[name] = {"quanda subclass detection": metric.compute()["score"]}
    return {"judged": judged}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=Path, required=True)
    folder = parser.parse_args().case.resolve()
    torch.set_num_threads(1)
    found = judge(folder)
    found["versions"] = {name: version(name) for name in PACKAGES}
    text = json.dumps(found, indent=1)
    (folder / "judged.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
