"""The front door: a run folder as one object that generates, scores and trains. `from lib import Model`.

    model = Model.from_run("artifacts/runs/gpt_balanced-hamlet")
    model.generate("To be", max_new_tokens=40)

The stages `generate` and `train` are built on the same functions. See docs/python.md.
"""

import sys
from collections import deque
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence, overload

import numpy as np
import torch
from torch import Tensor

from lib.artifact.provenance import timestamp
from lib.chat.messages import Message
from lib.chat.template import ChatTemplate
from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config, GenerateConfig, build_section
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.documents import open_documents
from lib.data.shards import InMemoryTokens
from lib.device.hardware import choose_device, keep_freed_memory
from lib.errors import MakegptError, UsageError, nearest
from lib.evaluate.analysis import Analysis, analyze, compare_with_training
from lib.evaluate.span import text_span
from lib.evaluate.training_text import TrainingText
from lib.evaluate.windows import prediction_parts
from lib.generate.chat import Dialog, encode_messages
from lib.generate.quantize import WEIGHT_FORMATS, InferenceModel
from lib.generate.request import Prompt, Request, complete, encode_prompt, make_requests, prompt_of_ids, stream_text
from lib.generate.token_scores import TokenScore, score_token
from lib.model.language_model import LanguageModel
from lib.run.folder import TrainedModel, is_gpt2_release, load_run, read_chat_template
from lib.tokenizer.base import Tokenizer
from lib.train.events import Event
from lib.train.session import train_run


class Model:
    """A trained model with its tokenizer, ready to generate.

    Sampling parameters of `generate` and `stream` are those of the section `generate` in params.yaml, which also holds the
    defaults: `max_new_tokens`, `temperature` (0: greedy), `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`.
    """

    def __init__(
        self,
        run: TrainedModel,
        device: torch.device,
        weights: str = "float32",
        *,
        folder: Path,
        starts_with_endoftext: bool = False,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        """Use `Model.from_run`. `starts_with_endoftext`: an empty prompt is `<|endoftext|>`, as in GPT-2's release.

        `folder`: where the run is. `chat_template`: how the model expects conversations.
        """
        self.network = InferenceModel(run.model, weights)
        #: What `evaluate` computes losses with, to the last bit: in float32 the trained model, which `network` shares all
        #: weights with.
        self.evaluated: LanguageModel = run.model if weights == "float32" else self.network
        self.tokenizer: Tokenizer = run.tokenizer
        self.config: ModelConfig = run.config
        self.device = device
        self.sha256 = run.sha256  # of the file that the weights are from
        self.training_text = TrainingText(folder, run.tokenizer, resolve_config(load_params()).evaluate.ngram_order)
        self._starts_with_endoftext = starts_with_endoftext
        self._chat_template = chat_template

    @classmethod
    def from_run(
        cls, path: str | Path, *, weights: str = "float32", checkpoint: str = "published", device: str = "auto"
    ) -> "Model":
        """Load the run folder `path`, its files verified.

        `weights`: float32, or smaller: bfloat16, int8 or int4. `checkpoint`: "published", the published weights of a finished
        run, or "last", those of the last saved state. `device`: cpu, cuda, mps, or auto.
        """
        for name, value, known in (("weights", weights, WEIGHT_FORMATS), ("checkpoint", checkpoint, ("published", "last"))):
            if value not in known:
                raise UsageError(f"{name}={value!r} is unknown; {nearest(value, known)}")
        folder, torch_device = Path(path), choose_device(device)
        run = load_run(folder, torch_device, checkpoint, encoder_decoder=True)
        starts_with_endoftext, chat_template = is_gpt2_release(folder, run.tokenizer), read_chat_template(folder)
        return cls(
            run,
            torch_device,
            weights,
            folder=folder,
            starts_with_endoftext=starts_with_endoftext,
            chat_template=chat_template,
        )

    @classmethod
    def train(
        cls,
        source: str | Path,
        out: str | Path,
        *,
        config: str | None = "debug",
        changes: Iterable[str] = (),
        device: str = "auto",
        on_event: Callable[[Event], None] | None = None,
    ) -> "Model":
        """Train into the run folder `out` and load the result; the same as the stage `train`, which resumes the run too.

        `source` is a dataset folder, or a text file: then its tokens and its dataset are written next to `out`, as
        OUT-tokens and OUT-dataset. `config` is a name in params.yaml (None: the defaults), overridden by `changes` such as
        "train.max_steps=100". `on_event` is called with each `StepMetrics`, `Logged`, `Notice` and `Stopped` of the training.
        """
        keep_freed_memory()
        started, folder = timestamp(), Path(out)
        resolved = resolve_config(load_params(), config, changes)
        dataset = Dataset(_dataset_folder(Path(source), folder, resolved, started))
        events = train_run(
            folder,
            dataset,
            resolved.model,
            resolved.train,
            choose_device(device),
            resume=True,
            started=started,
            stop_asked=lambda: False,
        )
        deque(map(on_event, events) if on_event else events, maxlen=0)  # run to the end, keep nothing
        return cls.from_run(folder, device=device)

    @overload
    def generate(self, prompt: str | None = None, *, stop: Sequence[str] = (), batch_size: int = 8, **sampling: Any) -> str: ...

    @overload
    def generate(
        self, prompt: Sequence[str], *, stop: Sequence[str] = (), batch_size: int = 8, **sampling: Any
    ) -> list[str]: ...

    def generate(
        self, prompt: str | Sequence[str] | None = None, *, stop: Sequence[str] = (), batch_size: int = 8, **sampling: Any
    ) -> str | list[str]:
        """The continuation of `prompt`, without the prompt; a list of prompts gives a list, computed in batches.

        No prompt, or an empty one, starts a text. The text ends before the first of the `stop` texts. Of an encoder-decoder the
        prompt is the source, which must not be empty, and the text the target.
        """
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        requests = self._requests(map(self.encode_prompt, prompts), stop, sampling)
        texts = [request.text for request in complete(self.network, requests, self.device, batch_size=batch_size)]
        return texts[0] if prompt is None or isinstance(prompt, str) else texts

    def stream(self, prompt: str | None = None, *, stop: Sequence[str] = (), **sampling: Any) -> Iterator[str]:
        """As `generate` with one prompt, piece by piece: each piece is whole characters, together they are the text."""
        requests = self._requests([self.encode_prompt(prompt)], stop, sampling)
        return (piece for _, piece in stream_text(self.network, requests, self.device) if piece)

    def answer(self, messages: str | Sequence[Message], *, stop: Sequence[str] = (), **sampling: Any) -> str:
        """The answer to `messages`, a conversation that ends with the user's, or to one message of the user."""
        messages = [Message("user", messages)] if isinstance(messages, str) else messages
        (request,) = self._requests([self.encode_messages(messages)], stop, sampling)
        return complete(self.network, [request], self.device)[0].text

    def logprobs(self, text: str) -> list[TokenScore]:
        """A score for each token of `text` but the first: its id, text, log-probability in nats, rank (1: the most likely) and
        the most likely tokens in its place. Minus the mean log-probability is the loss in nats/token.
        """
        if self.config.has_encoder:
            raise UsageError("an encoder-decoder gives no probability to a text alone; use a model of texts")
        span = text_span([text], self.tokenizer, "the text")
        return list(self.score_ids(span.tokens.read(span.start, span.stop).tolist()))

    def score_ids(self, ids: Sequence[int], alternatives: int = 5) -> Iterator[TokenScore]:
        """A score for each of the token `ids` but the first, in the windows of `evaluate`, with so many `alternatives`."""
        tokens = InMemoryTokens(np.array(ids, dtype=np.uint32))
        parts = prediction_parts(self.evaluated, tokens, 0, len(ids), self.device)

        def scores(part: tuple[Tensor, Tensor]) -> list[TokenScore]:
            pairs = zip(part[0].tolist(), part[1], strict=True)
            return [score_token(logits, id, self.tokenizer, alternatives) for id, logits in pairs]

        return chain.from_iterable(map(scores, parts))  # so that no logits are kept while nobody asks for more

    def analyze(
        self,
        text: str | Sequence[int],
        *,
        alternatives: int = 10,
        lens: bool = False,
        attention: bool = False,
        counts: bool = False,
        memorized: bool = False,
        full: bool = False,
    ) -> Analysis:
        """What the model thinks of `text`, or of token ids, at most as many as its context: of each token its surprisal and
        rank, the entropy and the most likely tokens in its place.

        `lens`: what each layer predicts. `attention`: the weights of every head. `counts`: the surprisal by counts of the
        training text. `memorized`: the passages that stand in it. `full`: the logits of the token after the last one.
        """
        if self.config.has_encoder:
            raise UsageError("an encoder-decoder gives no probability to a text alone; use a model of texts")
        ids = encode_prompt(self.tokenizer, text, name="the text").ids if isinstance(text, str) and text else text
        analysis = analyze(
            self.evaluated,
            self.tokenizer,
            [] if isinstance(ids, str) else ids,
            self.device,
            alternatives=alternatives,
            lens=lens,
            attention=attention,
            full=full,
        )
        return compare_with_training(analysis, self.training_text, counts=counts, memorized=memorized)

    def encode_prompt(self, text: str | None, *, from_endoftext: bool = False) -> Prompt:
        """The prompt `text`; one without tokens becomes the start of a text. Of an encoder-decoder it is the source."""
        starts = from_endoftext or (not text and self._starts_with_endoftext)
        return encode_prompt(self.tokenizer, text, from_endoftext=starts, is_source=self.config.has_encoder)

    def prompt_of_ids(self, ids: Sequence[int]) -> Prompt:
        """The prompt of token `ids`; of an encoder-decoder they are the source. MakegptError for unknown ids and for none."""
        prompt = prompt_of_ids(self.tokenizer, ids)
        if not self.config.has_encoder:
            return prompt
        assert self.tokenizer.endoftext is not None
        return Prompt(prompt.text, [self.tokenizer.endoftext], {}, source=tuple(ids))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model is said to know conversations."""
        return self._chat_template is not None

    @property
    def chat_template(self) -> ChatTemplate:
        """How the model expects conversations; MakegptError if it is not said to know any."""
        if self._chat_template is None:
            raise MakegptError("this model continues texts, and has no chat template; SmolLM2 has one: `make demo` gets it")
        return self._chat_template

    def encode_messages(self, messages: Sequence[Message], name: str = "the conversation") -> Prompt:
        """The prompt that is answered after `messages`."""
        return encode_messages(self.tokenizer, self.chat_template, messages, name=name)

    def dialog(self, *, reserve: int, system: str | None = None) -> Dialog:
        """A conversation with the model; `reserve` tokens of its context are kept for an answer."""
        return Dialog(self.tokenizer, self.chat_template, self.config.context_length, reserve=reserve, system=system)

    def check_draft(self, draft: "Model") -> None:
        """UsageError if `draft` cannot propose tokens to this model, since it has others."""
        if self.config.has_encoder or draft.config.has_encoder:
            raise UsageError("speculative decoding is for models that continue texts; leave --draft with an encoder-decoder")
        if draft.tokenizer.identity() != self.tokenizer.identity():
            raise UsageError("the draft has another tokenizer than the model; train one on a dataset with the model's tokens")

    def kernel_notice(self) -> str | None:
        """What to tell a user if PyTorch computes in place of the C++ kernel; None if the kernel does."""
        return self.network.kernel_notice()

    def _requests(self, prompts: Iterable[Prompt], stop: Sequence[str], sampling: dict[str, Any]) -> list[Request]:
        if isinstance(stop, str) or "" in stop:
            raise UsageError(f"stop={stop!r} must be a list of texts that are not empty")
        values = asdict(resolve_config(load_params()).generate) | sampling
        config: GenerateConfig = build_section("generate", values, "generate")
        return list(make_requests(self.tokenizer, prompts, config, stop=stop, logprobs=False))


def _dataset_folder(source: Path, out: Path, config: Config, started: str) -> Path:
    """The dataset folder `source`, or the one made of the text file `source`."""
    if source.is_dir():
        return source
    tokens, dataset = out.with_name(f"{out.name}-tokens"), out.with_name(f"{out.name}-dataset")
    with open_documents([str(source)], sys.stdin.buffer, tokens) as documents:
        write_corpus(
            tokens,
            documents,
            config.tokenize.tokenizer,
            config.tokenize,
            config.build_dataset,
            started=started,
            on_bytes=lambda count: None,
        )
    build_dataset(
        tokens,
        dataset,
        context_length=config.model.context_length,
        stride=config.build_dataset.stride,
        val_fraction=config.build_dataset.val_fraction,
        test_fraction=config.build_dataset.test_fraction,
        seed=config.build_dataset.seed,
        started=started,
    )
    return dataset
