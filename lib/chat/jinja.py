"""A chat template in Jinja, as files of other projects have it, recognized as one of ours.

A template is a program, and a file may come from anywhere. So it is parsed, and run only if it is made of loops over the
messages, conditions and joined texts alone, which end soon whatever they say. If it writes some conversations down exactly as
one of our templates does, it is that template.
"""

from typing import Any

from lib.chat.messages import Message
from lib.chat.template import TEMPLATES, ChatTemplate

_LONGEST = 1 << 16  # characters; templates of real models have up to 10,000
_MOST_LOOPS = 2  # one inside the other, over at most five messages

_PROBES = [
    [Message("user", "Who?")],
    [Message("system", "Be brief.\n"), Message("user", " What is\n\n2 + 2?")],
    [Message("user", "a"), Message("assistant", "b"), Message("user", 'c\' \\ "d"')],
    [
        Message("system", "s"),
        Message("user", "é"),
        Message("assistant", "<b>"),
        Message("user", "x"),
        Message("assistant", "y"),
    ],
]


def recognize(source: str) -> ChatTemplate | None:
    """The template of ours that `source`, in Jinja, is equal to; None if there is none, or `source` cannot be followed."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(source) > _LONGEST:
        return None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        if not _is_plain(environment.parse(source)):
            return None
        template = environment.from_string(source)

        def text(messages: list[Message], answer: bool) -> str:
            return template.render(messages=[vars(message) for message in messages], add_generation_prompt=answer)

        for kind in TEMPLATES.values():
            candidate = kind(_system(kind(), text))
            if all(
                text(probe, answer) == candidate.text(probe, answer=answer) for probe in _PROBES for answer in (False, True)
            ):
                return candidate
    except (TemplateError, ValueError, TypeError, RecursionError):
        return None
    return None


def _system(template: ChatTemplate, text: Any) -> str | None:
    """The message of the system that `text` writes before a conversation that has none; None for none."""
    mark = "\N{REPLACEMENT CHARACTER}"
    before, after = template.text([Message("system", mark), *_PROBES[0]]).split(mark)
    written = text(_PROBES[0], False)
    if written.startswith(before) and written.endswith(after) and len(written) > len(before) + len(after):
        return written[len(before) : len(written) - len(after)]
    return None


def _is_plain(tree: Any) -> bool:
    """Whether a parsed template is made of loops, conditions and joined texts alone, with few loops in one another."""
    from jinja2 import nodes

    allowed = (
        nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.CondExpr, nodes.Name, nodes.Const,
        nodes.Getattr, nodes.Getitem, nodes.Add, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Not, nodes.And, nodes.Or,
    )  # fmt: skip

    def is_plain(node: Any, loops: int) -> bool:
        if not isinstance(node, allowed):
            return False
        if isinstance(node, nodes.For):
            loops += 1
            if loops > _MOST_LOOPS or not isinstance(node.iter, nodes.Name) or node.iter.name != "messages" or node.recursive:
                return False
        return all(is_plain(child, loops) for child in node.iter_child_nodes())

    return is_plain(tree, 0)
