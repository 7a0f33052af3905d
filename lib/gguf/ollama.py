"""The Modelfile with which `ollama create NAME -f Modelfile` takes a GGUF file (Ollama's documentation, Modelfile reference).

Ollama has templates in its own language. Without one of ours it would guess, and the model would see words that it was not
trained on; without the stop text of a dialogue it would write the user's next message too.
"""

MODELFILE = "Modelfile"

_START, _END = "<|im_start|>", "<|im_end|>"
_CHATML = "{{ range .Messages }}" + _START + "{{ .Role }}\n{{ .Content }}" + _END + "\n{{ end }}" + _START + "assistant\n"
_COMPLETION = "{{ .Prompt }}"


def modelfile(weights: str, context_length: int, chat_template: str | None) -> str:
    """The Modelfile of the GGUF file `weights` in the same folder.

    If `chat_template` is ChatML, SmolLM2's or Qwen's, it is written as Ollama's; for any other model the prompt is a text to
    continue.
    """
    chat = chat_template is not None and _START in chat_template and _END in chat_template
    lines = [
        f"FROM ./{weights}",
        f'TEMPLATE """{_CHATML if chat else _COMPLETION}"""',
        *([f'PARAMETER stop "{_END}"'] if chat else []),
        f"PARAMETER num_ctx {context_length}",
    ]
    return "\n".join(lines) + "\n"
