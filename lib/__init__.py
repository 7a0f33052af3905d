"""Everything a GPT is made of, from the bytes of a text to the tensors of the model.

`lib` is deep and silent: it never prints, never parses arguments (but for `pipeline/plan.py`, which make runs) and does
nothing on import.
Its modules import one way only, in the order of `lib.LAYERS`; a test holds them to it.
"""

__version__ = "0.1.0"

#: The rooms of the house, ground floor first. A module imports only from rooms above its own line.
LAYERS = (
    ("errors", "provenance", "markup", "svg", "fields", "gutenberg"),
    ("yaml_reader", "json_reader", "files"),
    ("config", "sessions"),
    ("params",),
    ("artifact", "references"),
    ("folders", "inputs", "text", "lines", "lock"),
    ("pipeline",),
    ("tokenizer",),
    ("shards",),
    ("corpus", "dataset"),
    ("loss",),
    ("model",),
    ("device", "precision", "compiled", "world", "schedule", "muon", "kernel"),
    ("optimizer", "checkpoint", "packed"),
    ("sampling", "analysis"),
    ("continuation",),
    ("generation",),
    ("samples",),
    ("evaluation", "scores", "baselines", "compressors", "pretrained", "certificate"),
    ("trainer", "state"),
    ("run", "clock"),
    ("beginning", "exchange", "stretch"),
    ("resume",),
    ("training",),
    ("memorisation", "verdict"),
    ("assessment",),
    ("cost", "figures", "inspection", "comparison", "book", "laboratory", "study", "findings"),
    ("diagrams", "blueprint", "curves", "ladder", "surprise", "reproduction", "study_figures", "inline_svg"),
    ("study_report",),
    ("plots", "subject"),
    ("sections",),
    ("page",),
)
