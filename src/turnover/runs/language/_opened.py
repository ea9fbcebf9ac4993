"""A run of a language model, opened: its adapters, its examples, and how to ask."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from torch import Tensor, nn

from turnover.data import DataWarning, Rows
from turnover.errors import DataError, RunError
from turnover.estimators import LEAST_READ, GradientKernel
from turnover.hf import AdapterEnsemble, Member, split_ensemble, unwrapped
from turnover.runs._fine_tuned import lora_config, refuse_other_base
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.runs._job import cosine
from turnover.runs._recipe import recipe_to_train_by
from turnover.runs._registry import RunLoader, unfinished
from turnover.runs.language._checkpoint import load_causal
from turnover.runs.language._data import Talk, asked_turns, place_of
from turnover.runs.language._tokens import Encoded, TalkTokenizer, language_loss, rows_of
from turnover.runs.text._checkpoint import same_weights, tokenizer_of
from turnover.runs.text._classifier import is_checkpoint
from turnover.runs.text._encoders import pretrained, source_of
from turnover.runs.text._untrained import untrained
from turnover.training import Recipe

__all__ = [
    "KIND",
    "LOADER",
    "LanguageQuery",
    "LanguageRun",
    "build_language",
    "examples_of",
    "open_language",
    "recipe_of",
    "untrained_language",
]

KIND = "language"
FEATURES = "features"
MOST_SAID = 128


def recipe_of(arguments: Mapping[str, Any]) -> Recipe:
    """How the adapters of a run are trained."""
    return Recipe(
        arguments["epochs"],
        arguments["batch_size"],
        arguments["seed"],
        partial(torch.optim.AdamW, lr=arguments["lr"], weight_decay=0.0),
        cosine,
    )


def build_language(arguments: Mapping[str, Any], seed: int, *, turnover: bool = False) -> nn.Module:
    """The untrained split ensemble of a run, or one network of its kind; from the seed.

    Raises:
        DataError: for a model that cannot be found or loaded.
        MissingExtra: when transformers or PEFT is not installed.
    """
    source = source_of(arguments["model"])
    base = pretrained("AutoModelForCausalLM", source, use_safetensors=True)
    how = {"task": "CAUSAL_LM", "dropout": arguments["dropout"], "config": base.config}
    lora = lora_config(arguments["lora"], **how)
    made: nn.Module
    if turnover:
        made = split_ensemble(base, lora, pairs=arguments["pairs"], seed=seed)
    else:
        made = Member.of(base, lora, seed)
    return made.to("cuda" if torch.cuda.is_available() else "cpu")


def untrained_language(run: Run, seed: int) -> nn.Module:
    """One untrained network of the kind of a run; of an index, its model before fine-tuning."""
    if is_checkpoint(run.arguments):
        return untrained(run, "AutoModelForCausalLM", seed)
    return build_language(run.arguments, seed)


@final
@dataclass(frozen=True, eq=False)
class LanguageQuery:
    """A response to be asked about.

    Attributes:
        rows: one row, whose loss is −log p of the words that are asked about.
        talk: what was said before, and the response.
        generated: whether the response is the model's own.
        cut: whether that was cut before the model came to its end.
        span: begin and end in the response of what is asked about; None for all of it.
        number: of the row in the test set; None of what was typed.
    """

    rows: Rows
    talk: Talk
    generated: bool = False
    cut: bool = False
    span: tuple[int, int] | None = None
    number: int | None = None


@final
@dataclass(frozen=True, eq=False)
class LanguageRun:
    """A run of a language model, with everything that questions about it need.

    Attributes:
        run: the run folder.
        model: pairs of adapters on one frozen model; of an index, the model that was there.
        tokenizer: of the model.
        train, test: tokens of the examples.
        talks: the examples of ``"train"`` and ``"test"``.
    """

    run: Run
    model: nn.Module
    tokenizer: TalkTokenizer
    train: Rows
    test: Rows
    talks: Mapping[str, Sequence[Talk]]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Loss ``[rows]`` in nats; see :func:`language_loss`."""
        return language_loss(model, batch)

    def kernel(self) -> GradientKernel:
        """The gradient kernel of the adapters, whose index stays in the run folder."""
        folder, damping = self.run.folder / FEATURES, self.run.arguments.get("damping", "auto")
        loss = language_loss if self.as_it_is else self.loss
        least = self.run.arguments.get("least_read", LEAST_READ)
        return GradientKernel(self.model, loss, "none", damping, folder=folder, least_read=least)

    @property
    def as_it_is(self) -> bool:
        """Whether the model was there already, and nothing was trained."""
        return is_checkpoint(self.run.arguments)

    def build(self, seed: int) -> nn.Module:
        """One untrained network of the same kind."""
        return untrained_language(self.run, seed)

    @cached_property
    def recipe(self) -> Recipe:
        """How the adapters were trained; of an index as its owner told, or not at all."""
        return recipe_to_train_by(self.run) if self.as_it_is else recipe_of(self.run.arguments)

    def query(self, number: int, span: str | None = None) -> LanguageQuery:
        """The response of a row of the test set.

        Raises:
            DataError: when there is no such row, or the span is not in its response.
        """
        if not 0 <= number < len(self.test):
            raise DataError(
                f"There is no test row {number}; this run has rows 0 to {len(self.test) - 1}."
            )
        return self._asked(self.talks["test"][number], span, number=number)

    def typed(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        response: str | None = None,
        span: str | None = None,
    ) -> LanguageQuery:
        """A prompt with a response, or with the one that the model gives by itself.

        A model of plain texts goes on with the prompt, in the same text. A space joins the two
        where neither has one. A response of the model that was cut has no end to ask about.

        Args:
            prompt: a text, or a chat: a list of ``{"role": …, "content": …}``, whose last message
                is the response where the assistant says it.
            response: what is asked about.
            span: words of the response that are asked about, at the first place where they stand
                as whole words; None for all. A warning says where there are several.

        Raises:
            DataError: for an empty prompt or response, a span that is not in the response or
                stands inside several of its words, and messages without a turn of the user or to
                a model of plain texts.
        """
        plain, ended = "text" in (self.run.manifest.get("columns") or {}), True
        if not isinstance(prompt, str):
            if plain:
                raise DataError(
                    f"{self.run.folder} learned plain texts, which have no turns of a chat. Ask "
                    "how a text goes on, with prompt=TEXT."
                )
            turns, response = asked_turns(prompt, response)
        elif prompt.strip():
            turns = (("user", prompt),)
        else:
            raise DataError("The prompt to ask about is empty.")
        said = response
        if said is None:
            before = self.tokenizer.prompt(Talk(turns, "", ""))
            if plain and isinstance(prompt, str):
                before = self.tokenizer.begun(prompt)
            said, ended = self.greedy(before)
            if not said.strip():
                raise DataError(
                    "The model answers this prompt with nothing at all, so there are no words to "
                    "ask about. Give a response with response=TEXT."
                )
        if plain and isinstance(prompt, str):
            talk = Talk((), _joined(prompt, said), "")
            place = place_of(said, span or said)
            begin = len(talk.response) - len(said)
            span_of = (begin + place[0], begin + place[1])
            return self._asked(talk, span_of, generated=response is None, cut=not ended)
        talk = Talk(turns, said, "")
        return self._asked(talk, span, ended=ended, generated=response is None)

    @torch.no_grad()
    def greedy(self, tokens: Sequence[int], most: int = MOST_SAID) -> tuple[str, bool]:
        """What the average of all members says: the most probable token, one after the other.

        Args:
            tokens: what was said before.
            most: tokens at which a response is cut, with a warning.

        Returns:
            The words, and whether the model ended them.
        """
        self.model.eval()
        tokens = list(tokens)[1 - self.tokenizer.length :]
        step = torch.tensor([tokens], device=next(self.model.parameters()).device)
        speakers = _speakers(self.model)
        caches = [_cache(inner) for _, inner in speakers]
        said: list[int] = []
        for _ in range(min(most, self.tokenizer.length - len(tokens))):
            total = torch.zeros((), device=step.device)
            for number, (member, _) in enumerate(speakers):
                found = member(input_ids=step, use_cache=True, **caches[number])
                total = total + found["logits"][0, -1].float()
            token = int(total.argmax())
            if token == self.tokenizer.inner.eos_token_id:
                return self.tokenizer.text(said), True
            said.append(token)
            step = step.new_tensor([[token]])
        warnings.warn(
            f"The model's own response was cut after {len(said)} tokens: it had not come to its "
            "end, which is not asked about.",
            DataWarning,
            stacklevel=2,
        )
        return self.tokenizer.text(said), False

    def _asked(
        self, talk: Talk, span: str | tuple[int, int] | None, *, ended: bool = True, **more: Any
    ) -> LanguageQuery:
        encoded = self.tokenizer(talk, ended=ended)
        rows = rows_of([encoded], torch.zeros(1, dtype=torch.int64), 0)
        labels, place = rows.batch["labels"], None
        if not talk.response.strip():
            raise DataError("The response to ask about is empty.")
        if span is not None:
            place = place_of(talk.response, span) if isinstance(span, str) else span
            _only(labels[0], encoded, place)
        count = (labels[:, 1:] != -100).sum(1)
        batch = {**rows.batch, "labels": labels, "weight": count.float()}
        return LanguageQuery(Rows(batch, rows.ids), talk, span=place, **{"cut": not ended, **more})


def _speakers(model: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Who says the next word: each with its transformer."""
    if isinstance(model, AdapterEnsemble):
        return list(zip(model.members, model.transformers, strict=True))
    return [(model, unwrapped(model))]


def _cache(transformer: Any) -> dict[str, Any]:
    """An empty cache of keys and values, which passes fill, by the name that its release takes."""
    from transformers import DynamicCache

    new = "cache" in signature(transformer.forward).parameters
    return {"cache" if new else "past_key_values": DynamicCache(config=transformer.config)}


def _joined(prompt: str, response: str) -> str:
    """A text that goes on; a space parts two words."""
    apart = prompt[-1:].isspace() or not response[:1].isalnum()
    return f"{prompt}{response}" if apart else f"{prompt} {response}"


def _only(labels: Tensor, encoded: Encoded, place: tuple[int, int]) -> None:
    """Labels of the tokens that lie in a part of the response alone, in place."""
    if not encoded.offsets:
        raise DataError("This tokenizer does not say which words its tokens are: leave out span.")
    inside = [begin < place[1] and end > place[0] for begin, end in encoded.offsets]
    count = len(labels) - encoded.response
    inside = [*inside, *[False] * (count - len(inside))][:count]
    if not any(inside):
        raise DataError("These words lie behind the end of what is read of a response.")
    labels[encoded.response :][~torch.tensor(inside)] = -100


def open_language(folder: str | Path) -> LanguageRun:
    """A finished run of a language model, opened.

    Raises:
        RunError: for a folder that is missing, damaged, unfinished or of another kind, and for a
            base that is not there or not the same.
        MissingExtra: when transformers or PEFT is not installed.
    """
    run = Run.open(folder)
    if run.manifest.get("kind") != KIND:
        raise RunError(f"{folder} is no run of a language model, so nothing is generated by it.")
    if not run.complete:
        raise unfinished(run)
    examples = {name: examples_of(run, name) for name in ("train", "test")}
    train, test = (examples[name][0] for name in ("train", "test"))
    talks = {name: found for name, (_, found) in examples.items()}
    try:
        arguments = run.arguments
        source = source_of(arguments["model"])
        if is_checkpoint(arguments):
            model = same_weights(run, load_causal)
        else:
            recipe_of(arguments)
            model = build_language(arguments, arguments["seed"], turnover=True)
        tokenizer = TalkTokenizer(tokenizer_of(arguments["model"]), arguments["max_length"])
    except DataError as error:
        raise RunError(
            f"The run in {folder} holds adapters alone, and the model that they stand on cannot be "
            f"loaded. {error}"
        ) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
    if not isinstance(model, AdapterEnsemble):
        return LanguageRun(run, model, tokenizer, train, test, talks)
    refuse_other_base(run.manifest, model, source)
    run.load_model(model)
    model.eval()
    with torch.no_grad():
        language_loss(model, train.select(slice(0, 1)).batch)  # a layer learns its units
    if describe_masks(model) != run.manifest.get("masks"):
        raise RunError(f"The coins of {run.folder} cannot be made again by this release.")
    return LanguageRun(run, model, tokenizer, train, test, talks)


def examples_of(run: Run, name: str) -> tuple[Rows, list[Talk]]:
    """The examples of a side of a finished run: tokens and words.

    Args:
        run: the run; no model is loaded for them.
        name: ``"train"`` or ``"test"``.

    Raises:
        RunError: for a run that is unfinished, or a file that is missing, damaged or not the run's.
    """
    if not run.complete:
        raise unfinished(run)
    rows = run.load_rows(name)
    known = run.manifest.get("data")
    if not isinstance(known, dict) or fingerprint(rows) != known.get(name):
        raise RunError(f"The rows in {run.folder / name}.safetensors are not this run's.")
    return rows, _talks(run, name, len(rows))


def _talks(run: Run, name: str, count: int) -> list[Talk]:
    found: Any = run.read_json(f"{name}.json")
    try:
        talks = [
            Talk(tuple((str(role), str(said)) for role, said in turns), str(response), str(own))
            for turns, response, own in zip(
                found["turns"], found["response"], found["name"], strict=True
            )
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.folder / name}.json is damaged: {error!r}.") from error
    if len(talks) != count:
        raise RunError(f"{run.folder / name}.json is damaged: it must hold {count} examples.")
    return talks


def _refuse(run: Run) -> NoReturn:
    raise DataError(
        f"{run.folder} is a run of a language model, which has no classes. What can be asked of it "
        "are ask, audit, prove, report, explore and apply."
    )


LOADER = RunLoader(_refuse)
