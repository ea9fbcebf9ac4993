"""What trainers ask of a model beside its outputs, handed on to the transformers of all members.

Above all: activations that are recomputed in the backward pass, and not kept.
"""

from typing import Any

from torch import nn

__all__ = ["Recomputing"]


class Recomputing(nn.Module):
    """A module of several transformers that are configured alike.

    Attributes:
        reentrant: whether activations are recomputed by torch's older, reentrant way.
    """

    reentrant = False

    @property
    def transformers(self) -> list[Any]:
        """The transformers, without wrappers around them."""
        raise NotImplementedError

    @property
    def config(self) -> Any:
        """The configuration of the base model."""
        return self.transformers[0].config

    @property
    def generation_config(self) -> Any:
        """How the base model generates."""
        return self.transformers[0].generation_config

    def add_model_tags(self, tags: Any) -> None:
        """Tags for a model card."""
        for one in self.transformers:
            one.add_model_tags(tags)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Any = None, **how: Any
    ) -> None:
        """Recompute activations in the backward pass, in every member."""
        self.reentrant = bool((activation_checkpointing_kwargs or {}).get("use_reentrant", False))
        for one in self.transformers:
            # the name since transformers 5.20, and the one before
            enable = getattr(one, "activation_checkpointing_enable", None)
            enable = enable or one.gradient_checkpointing_enable
            enable(activation_checkpointing_kwargs, **how)
            if self.reentrant:
                one.enable_input_require_grads()  # else frozen first blocks end all gradients

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Any = None, **how: Any
    ) -> None:
        """The same by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **how)

    def activation_checkpointing_disable(self) -> None:
        """Keep activations again."""
        for one in self.transformers:
            disable = getattr(one, "activation_checkpointing_disable", None)
            (disable or one.gradient_checkpointing_disable)()

    def gradient_checkpointing_disable(self) -> None:
        """The same by its older name."""
        self.activation_checkpointing_disable()
