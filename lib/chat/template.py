"""Chat templates: a conversation as one text, which a model can continue with the answer.

A model continues texts, so a conversation has to become one. A template writes it down: ChatML with a tag before and after each
message, the form of OpenAI and Qwen; Alpaca as one page with headings (Taori et al. 2023).

    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    Hello<|im_end|>

The tags are special tokens: each is one id, which no text is encoded to. So a user who types `<|im_end|>` sends eight ordinary
characters and more, and cannot end a message or speak for the assistant.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Iterable, Sequence

from lib.artifact.io import read_json
from lib.chat.messages import Message
from lib.errors import MakegptError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer

#: What Alpaca tells the model before each instruction.
ALPACA_SYSTEM = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
IM_START, IM_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class Segment:
    """A part of a written conversation: text, or a special token by its name. The model learns to write what is `trained`."""

    text: str
    special: bool = False
    trained: bool = False


@dataclass(frozen=True)
class ChatTemplate(ABC):
    """How a conversation is written. `system`: the message of the system for conversations that have none."""

    system: str | None = None

    name: ClassVar[str]
    #: The special token that ends an answer.
    end: ClassVar[str]
    #: All the special tokens that it writes.
    special: ClassVar[tuple[str, ...]]

    @abstractmethod
    def segments(self, messages: Sequence[Message], *, answer: bool = False) -> list[Segment]:
        """The conversation in segments; with `answer`, up to where the assistant's next answer begins."""

    @abstractmethod
    def jinja(self) -> str:
        r"""The same template in Jinja, the language in which tokenizer_config.json and GGUF files have it.

        transformers and llama.cpp drop a line break after a block and blanks before one, so a break is written as '\n'.
        """

    def to_saved(self) -> dict[str, str | None]:
        """The template as plain data, for `template_from_saved`."""
        return {"template": self.name, "system": self.system}

    def text(self, messages: Sequence[Message], *, answer: bool = False) -> str:
        """The conversation as one text, the special tokens by their names."""
        return "".join(segment.text for segment in self.segments(messages, answer=answer))

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        default = [] if self.system is None or messages[0].role == "system" else [Message("system", self.system)]
        return [*default, *messages]


class ChatML(ChatTemplate):
    """Each message between two tags, after its role."""

    name = "chatml"
    end = IM_END
    special = (IM_START, IM_END)

    def segments(self, messages: Sequence[Message], *, answer: bool = False) -> list[Segment]:
        segments = []
        for message in self._with_system(messages):
            trained = message.is_trained
            segments += [Segment(IM_START, special=True), Segment(f"{message.role}\n")]
            segments += [Segment(message.content, trained=trained), Segment(IM_END, special=True, trained=trained)]
            segments.append(Segment("\n"))
        return [*segments, Segment(IM_START, special=True), Segment("assistant\n")] if answer else segments

    def jinja(self) -> str:
        message = f"'{IM_START}' + m['role'] + '\\n' + m['content'] + '{IM_END}\\n'"
        system = ""
        if self.system is not None:
            first = _quoted(f"{IM_START}system\n{self.system}{IM_END}\n")
            system = f"{{% if messages[0]['role'] != 'system' %}}{{{{ {first} }}}}{{% endif %}}"
        answer = f"{{% if add_generation_prompt %}}{{{{ '{IM_START}assistant\\n' }}}}{{% endif %}}"
        return f"{system}{{% for m in messages %}}{{{{ {message} }}}}{{% endfor %}}{answer}"


class Alpaca(ChatTemplate):
    """Headings for what is asked and what is answered; an answer ends with `<|endoftext|>`."""

    name = "alpaca"
    end = ENDOFTEXT
    special = (ENDOFTEXT,)

    _HEADINGS: ClassVar[dict[str, str]] = {"user": "### Instruction:\n", "assistant": "### Response:\n"}

    def segments(self, messages: Sequence[Message], *, answer: bool = False) -> list[Segment]:
        segments = []
        for message in self._with_system(messages):
            trained = message.is_trained
            if message.role in self._HEADINGS:
                segments.append(Segment(self._HEADINGS[message.role]))
            segments.append(Segment(message.content, trained=trained))
            is_answer = message.role == "assistant"
            segments.append(Segment(ENDOFTEXT, special=True, trained=trained) if is_answer else Segment("\n\n"))
        return [*segments, Segment(self._HEADINGS["assistant"])] if answer else segments

    def jinja(self) -> str:
        system = ""
        if self.system is not None:
            first = _quoted(f"{self.system}\n\n")
            system = f"{{% if messages[0]['role'] != 'system' %}}{{{{ {first} }}}}{{% endif %}}"
        user, assistant = (heading.replace("\n", "\\n") for heading in self._HEADINGS.values())
        return (
            f"{system}{{% for m in messages %}}"
            f"{{% if m['role'] == 'assistant' %}}{{{{ '{assistant}' + m['content'] + '{ENDOFTEXT}' }}}}"
            f"{{% elif m['role'] == 'user' %}}{{{{ '{user}' + m['content'] + '\\n\\n' }}}}"
            "{% else %}{{ m['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ '{assistant}' }}}}{{% endif %}}"
        )


TEMPLATES: dict[str, type[ChatTemplate]] = {template.name: template for template in (ChatML, Alpaca)}


def template_in(config: Path) -> ChatTemplate | None:
    """The template that the config.json of a run names; None if it names none. MakegptError if it is damaged."""
    saved = read_json(config)
    if not isinstance(saved, dict) or saved.get("chat") is None:
        return None
    try:
        return template_from_saved(saved["chat"])
    except ValueError as error:
        raise MakegptError(f"{config} is damaged: chat: {error}; train or import the run again") from None


def choose_template(name: str | None, folder: Path) -> ChatTemplate:
    """The template called `name`, or, without a name, that of the run in `folder`, or ChatML if that is no run or knows none.

    The run's, if it is of that kind, has the run's message of the system; Alpaca's has its own.
    """
    config = folder / "config.json"
    template = template_in(config) if config.is_file() else None
    if template is not None and name in (None, template.name):
        return template
    return Alpaca(ALPACA_SYSTEM) if name == Alpaca.name else ChatML()


def template_from_saved(saved: Any) -> ChatTemplate:
    """The template of the data from `to_saved`; ValueError for other data."""
    name, system = (saved.get("template"), saved.get("system")) if isinstance(saved, dict) else (None, None)
    if name not in TEMPLATES or not isinstance(system, str | None):
        raise ValueError(f"it must name a chat template, {' or '.join(TEMPLATES)}, and the message of the system or null")
    return TEMPLATES[name](system)


def _quoted(text: str) -> str:
    """`text` as a string of Jinja."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def encode_segments(segments: Iterable[Segment], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """The ids of `segments`, each encoded by itself, and whether each is trained.

    So the ids are those that a model sees when it answers: what comes before an answer is encoded without knowing it.
    """
    ids: list[int] = []
    trained: list[bool] = []
    for segment in segments:
        new = [special_id(segment.text, tokenizer)] if segment.special else tokenizer.encode(segment.text)
        ids += new
        trained += [segment.trained] * len(new)
    return ids, trained


def special_id(name: str, tokenizer: Tokenizer) -> int:
    """The id of the special token called `name`; MakegptError if the vocabulary has none."""
    for id in tokenizer.special_ids():
        if tokenizer.token_bytes(id) == name.encode("utf-8"):
            return id
    raise MakegptError(f"the {tokenizer.kind} vocabulary has no special token {name}, which the chat template needs")
