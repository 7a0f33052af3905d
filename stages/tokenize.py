"""Text to token shards, or to ids on stdout and back."""

if __name__ == "tokenize":  # a file of this folder was run, so this one hides the standard library's
    import sys

    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    command = name.replace("_", "-")
    print(f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file", file=sys.stderr)
    sys.exit(2)

import sys
from pathlib import Path

import click

from lib import provenance
from lib.config import Config
from lib.errors import UsageError
from stages import check_one_value, say, stage, text_path
from stages.shared.progress import progress


@stage("tokenize", tokenize=("errors", "shard_tokens"))
@click.argument("files", nargs=-1, type=text_path, metavar="[FILE...|-]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="The tokens folder to make.")
@click.option("--ids", is_flag=True, help="Ids on stdout, one line a document; nothing is cleaned.")
@click.option("--decode", is_flag=True, help="Ids on stdin, their text on stdout.")
@click.option(
    "--tokenizer",
    "kind",
    metavar="gpt2|char|bytes|word|DIR",
    help="What a token is, or a folder with a tokenizer.json  [default: gpt2]",
)
def main(files: tuple[str, ...], output: Path | None, ids: bool, decode: bool, kind: str | None, config: Config) -> None:
    """Text to token shards (-o), to ids on stdout (--ids), or ids back to text (--decode).

    Each FILE is one document, and so is stdin (-). On the way to shards a byte-order mark is dropped and Project
    Gutenberg's headers and licences are cut; documents are separated by <|endoftext|> where the tokenizer has it.
    """
    from lib import corpus
    from lib.text import Tally

    started = provenance.now()
    if (output is not None) + ids + decode != 1:
        raise UsageError("give one of -o DIR, --ids and --decode; see `tokenize --help`")
    if not files and sys.stdin.isatty():
        raise UsageError("no FILE was named and nothing is piped in; for example `tokenize data/hamlet.txt -o DIR`")
    if kind is not None:
        check_one_value("--tokenizer", kind, "tokenize.tokenizer")
    chosen = config.tokenize.tokenizer if kind is None else kind
    names = files or ("-",)
    if decode:
        if files:
            raise UsageError(f"--decode reads ids from stdin; do `tokenize --decode < {files[0]}`")
        for text in corpus.decode_ids(sys.stdin.buffer, corpus.saved_tokenizer(chosen, "--decode")):
            sys.stdout.buffer.write(text)
    elif ids:
        tally = Tally()
        tokenizer = corpus.saved_tokenizer(chosen, "--ids")
        for text in corpus.encode_ids(names, sys.stdin.buffer, tokenizer, config.tokenize.errors, tally):
            sys.stdout.buffer.write(text)
        if tally.replaced:
            say(corpus.replaced(tally.replaced))
    else:
        assert output is not None
        with corpus.opened(names, sys.stdin.buffer, output) as documents:
            for notice in corpus.notices(documents):
                say(notice)
            with progress(corpus.size(documents), "bytes") as shown:
                made = corpus.write(output, documents, chosen, config.tokenize, started=started, on_bytes=shown.advance)
        say(f"{output}: {corpus.summary(made)}")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
