"""Turn text into token shards, or into ids on stdout and back."""

if __name__ == "tokenize":  # python stages/FILE.py was run, and this file hides the module of the standard library
    import sys

    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    command = name.replace("_", "-")
    print(f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file", file=sys.stderr)
    sys.exit(2)

import sys
from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.options import check_one_value, config_options, parameter, text_path
from stages.shared.progress import progress
from stages.shared.streams import say


@click.command("tokenize", cls=Stage)
@click.argument("files", nargs=-1, type=text_path, metavar="[FILE...|-]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Output folder for the token shards.")
@click.option("--ids", is_flag=True, help="Print ids to stdout, one line per document; the text is not cleaned.")
@click.option("--decode", is_flag=True, help="Read ids from stdin and print their text to stdout.")
@click.option(
    "--tokenizer",
    "kind",
    metavar="gpt2|char|bytes|word|DIR",
    help="Tokenizer type, or a folder with a tokenizer.json  [default: gpt2]",
)
@parameter("tokenize.errors")
@parameter("tokenize.shard_tokens")
@config_options()
def main(files: tuple[str, ...], output: Path | None, ids: bool, decode: bool, kind: str | None, config: Config) -> None:
    """Turn text into token shards (-o) or into ids on stdout (--ids), or ids back into text (--decode).

    Each FILE is one document, and so is stdin (-). For shards, a byte-order mark and Project Gutenberg's headers and
    licenses are removed, and documents are separated by <|endoftext|> if the tokenizer has that token.
    """
    from lib.data.corpus import (
        cleaning_notices,
        corpus_summary,
        decode_ids,
        encode_ids,
        open_documents,
        replacement_notice,
        saved_tokenizer,
        total_bytes,
        write_corpus,
    )
    from lib.data.text import ReadCounter

    started = timestamp()
    if (output is not None) + ids + decode != 1:
        raise UsageError("give one of -o DIR, --ids and --decode; see `tokenize --help`")
    if not files and sys.stdin.isatty():
        raise UsageError("no FILE given and stdin is a terminal; for example `tokenize data/hamlet.txt -o DIR`")
    if kind is not None:
        check_one_value("--tokenizer", kind, "tokenize.tokenizer")
    tokenizer_name = config.tokenize.tokenizer if kind is None else kind
    names = files or ("-",)
    if decode:
        if files:
            raise UsageError(f"--decode reads ids from stdin; use `tokenize --decode < {files[0]}`")
        for text in decode_ids(sys.stdin.buffer, saved_tokenizer(tokenizer_name, "--decode")):
            sys.stdout.buffer.write(text)
    elif ids:
        counter = ReadCounter()
        tokenizer = saved_tokenizer(tokenizer_name, "--ids")
        for line in encode_ids(names, sys.stdin.buffer, tokenizer, config.tokenize.errors, counter):
            sys.stdout.buffer.write(line)
        if counter.replaced:
            say(replacement_notice(counter.replaced))
    else:
        assert output is not None
        with open_documents(names, sys.stdin.buffer, output) as documents:
            for notice in cleaning_notices(documents):
                say(notice)
            with progress(total_bytes(documents), "bytes") as bar:
                manifest = write_corpus(
                    output, documents, tokenizer_name, config.tokenize, started=started, on_bytes=bar.advance
                )
        say(f"{output}: {corpus_summary(manifest)}")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
