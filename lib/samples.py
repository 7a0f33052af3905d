"""Samples through training: what a model writes after one and the same prompt, as it learns."""

import copy
from pathlib import Path
from typing import Any

import torch

from lib import compiled, fields, generation, json_reader, packed
from lib.config import GenerateConfig, TrainConfig
from lib.continuation import Continuation, encode
from lib.device import seed_from
from lib.errors import MakegptError
from lib.model import LanguageModel
from lib.tokenizer import Tokenizer

#: A line a sample: step, tokens (trained on by then), prompt, text.
FILE = "samples.jsonl"


class Sampler:
    """Makes the samples of one training. The model that is being trained stays as it is, and so do all random numbers
    but those of the sample itself, which follow from (seed, step).
    """

    def __init__(self, model: LanguageModel, made: Tokenizer, config: TrainConfig, device: torch.device) -> None:
        """MakegptError where the prompt cannot be encoded."""
        self._model = model
        self._tokenizer = made
        self._config = config
        self._device = device
        self._prompt = encode(made, config.sample_prompt, name="train.sample_prompt")

    def due(self, step: int, validated: bool) -> bool:
        """Whether there is to be a sample after `step`, which was followed by a validation or not."""
        interval = self._config.sample_interval
        if interval is None:
            return validated
        return interval > 0 and (step % interval == 0 or step == self._config.max_steps)

    def line(self, step: int, tokens: int) -> dict[str, Any]:
        """The sample after `step`, as a line of the file; its text is cut short where the scores are not finite."""
        config = self._config
        asked = GenerateConfig(
            prompt=config.sample_prompt,
            max_new_tokens=config.sample_tokens,
            temperature=config.sample_temperature,
            top_k=None,
            top_p=None,
            min_p=None,
            repetition_penalty=1.0,
            seed=seed_from(config.seed, step),
        )
        text = Continuation(self._tokenizer, self._prompt, asked, scored=False)
        try:
            for _ in generation.write(generating_twin(self._model), [text], self._device):
                pass
        except MakegptError:  # a training that diverges tells of it itself, at its next step
            pass
        return {"step": step, "tokens": tokens, "prompt": self._prompt.text, "text": text.text}


def generating_twin(model: LanguageModel) -> LanguageModel:
    """A second model around the same numbers, in evaluation mode and ready to generate fast; the first can be trained on.

    It is made anew for every sample, which takes milliseconds: nothing in it can be older than the weights.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared).eval()
    compiled.undo(twin)
    packed.pack(twin, "float32")
    return twin


def read(folder: Path) -> list[dict[str, Any]]:
    """The samples of the training in `folder`, in order; none where none were kept. MakegptError where they are damaged."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        lines = json_reader.load_lines(path)
        if fields.damaged(lines, [{"step": fields.COUNT, "prompt": str, "text": str}]) is not None:
            raise ValueError
    except ValueError:
        raise MakegptError(f"{path} is damaged: it holds lines that are no samples; train the run again") from None
    return lines
