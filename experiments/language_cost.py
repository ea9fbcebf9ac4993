"""Memory and seconds of each method for a language model, of one network and for each example.

    python -m experiments.language_cost --json experiments/results/language_cost.json

The network is that of :mod:`experiments.language_tracing`, untrained: what a method takes does not
depend on the weights. A split ensemble has two networks in its pair, so that its numbers are halved
to be those of one. Each method runs in a process of its own (:mod:`experiments._apart`).
"""

from typing import Any

import torch

from experiments import _language_peers as language_peers, language_tracing as task
from experiments._apart import Failed, apart
from experiments.trace_facts import Setting, Speaker, encode, make_task, make_tokenizer
from turnover import Rows, hf

FACTS, QUERIES, FREE = 60, 20, ("BM25", "BM25 without subjects", "chance")
LANGUAGE_SEED = 0


def untrained(facts: int, queries: int) -> task.Tuned:
    told = make_task(facts)
    tokenizer = make_tokenizer([f"{a} {b}." for a, b in told.support + told.trained])
    rows = task.masked(Rows(encode(tokenizer, told.trained, answer_only=False)))
    asked = task.masked(
        Rows(encode(tokenizer, told.asked[:queries], answer_only=True), torch.arange(queries))
    )
    torch.manual_seed(LANGUAGE_SEED)
    trunk = Speaker(tokenizer.get_vocab_size())
    setting = Setting(told, rows, asked, told.subjects, trunk, tokenizer.get_vocab_size())
    networks = [_moved(task.build(trunk.gpt, seed=0))]
    ensemble = _moved(hf.split_ensemble(trunk.gpt, task.lora(), pairs=1))
    return task.Tuned(setting, rows, asked, trunk.gpt, networks, ensemble)


def _moved(model: Any) -> Any:
    """LoRA begins at zero, where half of its gradients are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


def measure(facts: int, queries: int) -> dict[str, Any]:
    tuned = untrained(facts, queries)
    results, absent = [], dict(language_peers.ABSENT)
    for name, work in task.methods(tuned).items():
        if name in FREE:
            continue
        try:
            done = apart(work)
        except Failed as error:
            absent[name] = str(error)
            continue
        networks = 2 if name.startswith("split") else 1
        each = 1e3 * done.seconds / (facts + queries) / networks
        told = {"ms per example": round(each, 2), "megabytes": round(done.megabytes, 1)}
        results.append({"method": name, **told})
        print(results[-1], flush=True)
    trained = sum(p.numel() for p in tuned.networks[0].parameters() if p.requires_grad)
    return {
        "sentences": facts,
        "questions": queries,
        "trainable": trained,
        "parameters": sum(p.numel() for p in tuned.networks[0].parameters()),
        "results": results,
        "absent": absent,
        "peers": language_peers.VERSIONS,
    }


def main() -> None:
    task.command(__doc__.partition("\n")[0], measure, network=LANGUAGE_SEED)


if __name__ == "__main__":
    main()
