"""From examples to tokens, of which those of the response are labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from turnover.data import Rows
from turnover.errors import DataError
from turnover.hf import IGNORED, token_losses
from turnover.runs.language._data import Talk
from turnover.runs.text._adapted import trim
from turnover.runs.text._checkpoint import adapter_of, base_of
from turnover.runs.text._encoders import pretrained

__all__ = ["Encoded", "TalkTokenizer", "language_loss", "rows_of"]


def language_loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Loss ``[rows]`` in nats: the mean over labelled tokens of a row, times its ``"weight"``.

    A weight of 1 is what is trained by; the number of labelled tokens makes it −log p(response).
    """
    batch = trim(batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    losses, counted = token_losses(model, inputs)
    mean = losses.sum(1) / counted.sum(1).clamp(min=1)
    return mean * batch["weight"].to(mean)


@final
@dataclass(frozen=True)
class Encoded:
    """Tokens of one example.

    Attributes:
        tokens: numbers of all tokens.
        response: place of the first token of the response.
        offsets: begin and end in the response of each of its tokens; empty for its end.
        cut: whether something was left out, to fit.
    """

    tokens: list[int]
    response: int
    offsets: list[tuple[int, int]]
    cut: bool = False


@final
class TalkTokenizer:
    """The tokenizer of a language model, with its template of chats where it has one.

    Args:
        source: a folder, or a name at the Hugging Face hub.
        max_length: tokens of an example that are read.

    Raises:
        DataError: for a tokenizer that cannot be found or loaded.
        MissingExtra: when transformers is not installed.
    """

    def __init__(self, source: str, max_length: int) -> None:
        self.inner: Any = pretrained("AutoTokenizer", source)
        adapter = adapter_of(source)  # which has a tokenizer, and no configuration of a model
        config = pretrained("AutoConfig", source if adapter is None else base_of(adapter))
        longest = getattr(config, "max_position_embeddings", None) or max_length
        self.length = min(max_length, int(self.inner.model_max_length), int(longest))
        if self.inner.eos_token_id is None:
            raise DataError(
                f"The tokenizer of {source} has no end-of-text token, so that no response has an "
                "end. Set its eos_token, and save it again."
            )

    def prompt(self, talk: Talk) -> list[int]:
        """Tokens of what precedes the response."""
        return self._pieces(talk)[0]

    def begun(self, text: str) -> list[int]:
        """Tokens of a plain text that is not at its end."""
        start = self._pieces(Talk((), "", ""))[0]
        return [*start, *self.inner(text, add_special_tokens=False)["input_ids"]]

    def __call__(self, talk: Talk, *, ended: bool = True) -> Encoded:
        """Tokens of an example; a long prompt loses its beginning, a long response its end.

        Args:
            talk: the example.
            ended: whether the end-of-text token follows the response.
        """
        before, said = self._pieces(talk)
        found = self.inner(
            said, add_special_tokens=False, return_offsets_mapping=self.inner.is_fast
        )
        tokens = [*found["input_ids"], *[self.inner.eos_token_id] * ended]
        offsets = list(found.get("offset_mapping", ()))
        room = max(self.length - len(before), self.length // 2)
        cut = len(before) + len(tokens) > self.length
        tokens = tokens[:room]
        before = before[max(0, len(before) + len(tokens) - self.length) :]
        return Encoded([*before, *tokens], len(before), offsets[: len(tokens)], cut)

    def _pieces(self, talk: Talk) -> tuple[list[int], str]:
        """Tokens before the response, and the text of the response as it follows them."""
        if talk.turns and getattr(self.inner, "chat_template", None):
            turns = [{"role": role, "content": content} for role, content in talk.turns]
            text = self._templated(turns)
            return self.inner(text, add_special_tokens=False)["input_ids"], talk.response
        if not talk.turns:
            first = self.inner.bos_token_id
            start = self.inner.eos_token_id if first is None else first
            return [start], talk.response
        tokens = self.inner(f"{talk.prompt}\n")["input_ids"]
        if tokens[-1] == self.inner.eos_token_id:  # the end of a text, which goes on here
            tokens = tokens[:-1]
        return tokens, talk.response

    def _templated(self, turns: list[dict[str, str]]) -> str:
        """Turns in the form of the chat template, which ends where the assistant is to speak.

        Raises:
            DataError: for turns that the template refuses, such as an unknown role.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            )
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"The tokenizer's chat template refuses turns of {roles}: {error}. Give roles in "
                "the order that it takes, or set another template."
            ) from error

    def text(self, tokens: Sequence[int]) -> str:
        """The words of some tokens."""
        return str(self.inner.decode(tokens, skip_special_tokens=True))


def rows_of(encoded: Sequence[Encoded], ids: Tensor, pad: int) -> Rows:
    """Tokens of all examples, padded on the right; only those of responses have labels."""
    longest = max(len(one.tokens) for one in encoded)
    tokens = torch.full((len(encoded), longest), pad)
    mask = torch.zeros_like(tokens)
    labels = torch.full_like(tokens, IGNORED)
    for row, one in enumerate(encoded):
        count = len(one.tokens)
        tokens[row, :count] = torch.tensor(one.tokens)
        mask[row, :count] = 1
        labels[row, one.response : count] = tokens[row, one.response : count]
    batch = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return Rows({**batch, "weight": torch.ones(len(encoded))}, ids)
