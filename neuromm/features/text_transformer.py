"""Text through a transformer: sentences, and words in their context."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import (
    Attrs,
    Modality,
    Pooling,
    TokenStates,
    WordInContext,
)
from neuromm.features.layer_hooks import LayerReading, module_layers
from neuromm.features.torch_backbone import weights_sha256

__all__ = ["TextTransformer", "text_of", "word_means"]

# A tokeniser that knows no limit claims a number of this order.
_NO_LIMIT = 10**9


class TextTransformer:
    """A text model of `transformers`; made by `load_backbone`.

    A `WordInContext` is embedded as the mean of the hidden states of its sub-tokens, a
    plain text as ``pooling`` says. Where a text is longer than the model allows, its
    beginning is cut off, so that the word is kept.

    Attributes
    ----------
    name, dim, modality, attrs
        See `Backbone`.
    state_dims : tuple of int
        Length of an embedding by each hidden state.
    module : torch.nn.Module
    """

    modality: Modality = "text"

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        name: str,
        kind: str,
        seed: int | None,
        layer: int | None,
        pooling: Pooling,
        batch_size: int,
        device: str,
        max_tokens: int | None = None,
        fixed_length: bool = False,
    ) -> None:
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.module = encoder
        self.name = name
        self.dim = int(encoder.config.hidden_size)
        self._tokenizer = _prepared_tokenizer(tokenizer)
        self._layer = -1 if layer is None else layer
        self._pooling: Pooling = pooling
        self._batch_size = batch_size
        self._device = device
        self._kind, self._seed = kind, seed
        self._takes = set(inspect.signature(encoder.forward).parameters)
        self._max_tokens = _length(tokenizer, encoder.config, max_tokens)
        self.fixed_length = fixed_length
        self.state_dims = (self.dim,) * (int(encoder.config.num_hidden_layers) + 1)
        _check_layer(self._layer, encoder.config, name)

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        return {
            "model": self.name,
            "kind": self._kind,
            **({} if self._seed is None else {"seed": self._seed}),
            "layer": f"hidden state {self._layer}",
            "pooling": self._pooling,
            "preprocessing": (
                f"{type(self._tokenizer).__name__}, at most {self._max_tokens} tokens, "
                "cut at the beginning"
                + (", padded to that length" if self.fixed_length else "")
            ),
            "tokenizer_sha256": _tokenizer_sha256(self._tokenizer),
            "weights_sha256": weights_sha256(self.module),
        }

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n texts to an array of shape (n, dim).

        Raises
        ------
        DataError
            If a stimulus is no text, or a word has no token of its own.
        """
        return word_means(self.tokens(stimuli), stimuli, self._pooled)

    def hidden_states(
        self, stimuli: Sequence[object], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Map n texts to an array (n, dim) for each of these hidden states."""
        return [
            word_means(states, stimuli, self._pooled)
            for states in self._tokens(stimuli, layers)
        ]

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the hidden state of each token of each text, padding left out."""
        (found,) = self._tokens(stimuli, [self._layer])
        return found

    def _tokens(
        self, stimuli: Sequence[object], layers: Sequence[int]
    ) -> list[list[TokenStates]]:
        """Hidden states of each of these layers, a list a layer, in one pass."""
        import torch

        found: list[list[TokenStates]] = [[] for _ in layers]
        for start in range(0, len(stimuli), self._batch_size):
            batch = stimuli[start : start + self._batch_size]
            encoded, spans, mask = self.encoded(batch, fixed=self.fixed_length)
            with torch.inference_mode():
                states = self.module(**encoded, output_hidden_states=True).hidden_states
            for part, layer in zip(found, layers, strict=True):
                values = states[layer].float().cpu().numpy()
                part += [
                    TokenStates(np.array(v[keep]), np.array(s[keep]))
                    for v, s, keep in zip(values, spans, mask, strict=True)
                ]
        return found

    def layers(
        self, stimuli: Sequence[object], reading: LayerReading
    ) -> dict[str, NDArray[np.float32]]:
        """Map n texts to an array (n, n_features) for each layer; see `module_layers`.

        The pooling is over the tokens of the whole text, also of a `WordInContext`.
        With "flatten", texts are padded to the greatest length, so that rows are equal
        in length.
        """
        fixed = self.fixed_length or reading.pooling == "flatten"
        encoded, _, mask = self.encoded(stimuli, fixed=fixed)
        return module_layers(
            self.module,
            encoded,
            layers=reading.layers,
            pooling=reading.pooling,
            projection_dim=reading.projection_dim,
            seed=reading.seed,
            batch_size=self._batch_size,
            mask=mask,
        )

    def _pooled(self, states: TokenStates) -> NDArray[np.float32]:
        if self._pooling == "first":
            return np.asarray(states.values[0])
        if self._pooling == "last":
            return np.asarray(states.values[-1])
        return np.asarray(states.values.mean(axis=0))

    def encoded(
        self, stimuli: Sequence[object], *, fixed: bool
    ) -> tuple[dict[str, Any], NDArray[np.intp], NDArray[np.bool_]]:
        """Tokens of texts as the model takes them, their spans, and which count."""
        encoded = self._tokenizer(
            [text_of(stimulus) for stimulus in stimuli],
            padding="max_length" if fixed else True,
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        spans = encoded.pop("offset_mapping").numpy().astype(np.intp)
        mask = encoded["attention_mask"].numpy().astype(bool)
        # Some tokenisers give more (segments) than their model takes.
        known = {k: v.to(self._device) for k, v in encoded.items() if k in self._takes}
        return known, spans, mask


def text_of(stimulus: object) -> str:
    """Text of a str or a `WordInContext`.

    Raises
    ------
    DataError
        If the stimulus is something else, or empty.
    """
    text = stimulus.text if isinstance(stimulus, WordInContext) else stimulus
    if not isinstance(text, str):
        raise DataError(f"a text stimulus must be a str, got {type(text).__name__}")
    if not text.strip():
        raise DataError("a text stimulus is empty: leave that event out")
    return text


def word_means(
    states: Sequence[TokenStates],
    stimuli: Sequence[object],
    pool: Any,
) -> NDArray[np.float32]:
    """One vector a stimulus: the mean over a word's tokens, or ``pool`` for a text.

    Raises
    ------
    DataError
        If no token lies within a word.
    """
    if not len(stimuli):
        raise DataError("no stimuli: expected one or more")
    rows = []
    for state, stimulus in zip(states, stimuli, strict=True):
        if not isinstance(stimulus, WordInContext) or state.spans is None:
            rows.append(pool(state))
            continue
        start, end = state.spans.T
        own = (start < stimulus.end) & (end > stimulus.start) & (end > start)
        if not own.any():
            word = stimulus.text[stimulus.start : stimulus.end]
            raise DataError(
                f"the word {word!r} has no token: leave that event out, or "
                "take another tokeniser"
            )
        rows.append(state.values[own].mean(axis=0))
    return np.stack(rows).astype(np.float32)


def _prepared_tokenizer(tokenizer: Any) -> Any:
    tokenizer.truncation_side = "left"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UsageError(
                f"the tokeniser {type(tokenizer).__name__} has neither a padding nor "
                "an end token: set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token  # masked out, so its kind is nothing
    tokenizer.padding_side = "right"
    return tokenizer


def _length(tokenizer: Any, config: Any, asked: int | None) -> int:
    """Greatest number of tokens that tokeniser, positions and folder allow."""
    limits = [
        asked,
        tokenizer.model_max_length,
        getattr(config, "max_position_embeddings", None),
    ]
    known = [int(limit) for limit in limits if limit and limit < _NO_LIMIT]
    if not known:
        return 512
    length = min(known)
    # RoBERTa and its kin count positions from pad_token_id + 1.
    if config.model_type in ("roberta", "camembert", "xlm-roberta", "mpnet"):
        length = min(length, int(config.max_position_embeddings) - 2)
    return length


def _check_layer(layer: int, config: Any, name: str) -> None:
    n_states = int(config.num_hidden_layers) + 1
    if not -n_states <= layer < n_states:
        raise UsageError(
            f"{name} has hidden states 0 to {n_states - 1} (0 is the embedding layer), "
            f"got {layer}"
        )


def _tokenizer_sha256(tokenizer: Any) -> str:
    content = json.loads(tokenizer.backend_tokenizer.to_str(pretty=False))
    # How the last call padded and cut is noted here, and is no part of the tokeniser.
    for state in ("padding", "truncation"):
        content.pop(state, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
