"""The stages of the pipeline, one command a file.

A stage reads, makes one call into `lib` and writes. It never imports another stage; what several of them need is in
`stages.shared`. Its output goes to stdout, or to the file or folder of -o; log messages and errors go to stderr.
"""

#: Every stage with one line about it, in the order of the pipeline. The file is `NAME.py`, the command has - for _.
STAGES = {
    "fetch": "Download the pinned inputs into data/",
    "tokenize": "Turn text into token shards, or into ids and back",
    "build_dataset": "Split token shards into training and validation windows",
    "train": "Train a model on a dataset",
    "evaluate": "Measure loss, perplexity and bits/byte against baselines",
    "generate": "Continue a prompt with a trained model",
    "serve": "Serve models over HTTP to programs and to the browser",
    "classify": "Print the class of each text",
    "plot": "Draw a figure of a run or of a config",
    "report": "Write one HTML page about finished runs",
    "compare": "Print a table of evaluated runs and their baselines",
    "inspect": "Describe an artifact and trace it back to its text",
    "explain": "Show a page of the book and run its worked example",
    "practise": "Write an exercise of the book as a file with holes",
    "check": "Check the answers to an exercise",
    "study": "Run the sweep over depth and width",
    "reproduce": "Measure published numbers with this code",
    "import_weights": "Import GPT-2 weights in the Hugging Face layout",
    "export_weights": "Export a run to the Hugging Face layout or to GGUF",
    "export_page": "Export a run as one HTML page that computes it",
}


def command_name(stage: str) -> str:
    """The command of a stage: `build-dataset` for `build_dataset`."""
    return stage.replace("_", "-")
