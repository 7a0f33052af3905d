"""The Modelfile with which `ollama create NAME -f Modelfile` takes a GGUF file (Ollama's documentation, Modelfile reference).

Ollama has templates in a language of its own, Go's. Without one it would guess, and the model would see words that it was not
trained on; without the text that ends an answer it would write the user's next message too.
"""

from lib.chat.template import ChatTemplate
from lib.errors import MakegptError

MODELFILE = "Modelfile"

_QUOTES = '"""'
_COMPLETION = "{{ .Prompt }}"  # the model continues what it is given

#: The name of a chat template -> the same in Go's language, where a message of the system comes from SYSTEM.
_CONVERSATIONS = {
    "chatml": ("{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"),
    "alpaca": (
        '{{ range .Messages }}{{ if eq .Role "assistant" }}### Response:\n{{ .Content }}<|endoftext|>'
        '{{ else if eq .Role "user" }}### Instruction:\n{{ .Content }}\n\n{{ else }}{{ .Content }}\n\n{{ end }}{{ end }}'
        "### Response:\n"
    ),
}


def modelfile(weights: str, context_length: int, chat: ChatTemplate | None, *, other_template: bool = False) -> str:
    """The Modelfile of the GGUF file `weights` in the same folder, for conversations as `chat` writes them, or for any text.

    `other_template`: the file has a chat template that is none of ours; the choice of one is left to Ollama.

    MakegptError if the message of the system cannot be quoted in it.
    """
    commands = [f"FROM ./{weights}", f"PARAMETER num_ctx {context_length}"]
    if chat is None and not other_template:
        commands.append(f"TEMPLATE {_QUOTES}{_COMPLETION}{_QUOTES}")
    elif chat is not None:
        commands += [f"TEMPLATE {_QUOTES}{_CONVERSATIONS[chat.name]}{_QUOTES}", f'PARAMETER stop "{chat.end}"']
        if chat.system is not None:
            if _QUOTES in chat.system:
                raise MakegptError(
                    f"the system's message has {_QUOTES}, which a Modelfile cannot hold; change it in config.json"
                )
            commands.append(f"SYSTEM {_QUOTES}{chat.system}{_QUOTES}")
    return "\n".join(commands) + "\n"
