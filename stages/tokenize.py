"""Turn text into token shards, or into ids on stdout and back; learn a vocabulary."""

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
from stages.shared.options import check_one_value, config_options, note_kind, parameter, text_path
from stages.shared.progress import progress
from stages.shared.streams import say


@click.command("tokenize", cls=Stage)
@click.argument("files", nargs=-1, type=text_path, metavar="[FILE...|-]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Output folder.")
@click.option("--ids", is_flag=True, help="Print ids to stdout, one line per document; the text is not cleaned.")
@click.option("--decode", is_flag=True, help="Read ids from stdin and print their text to stdout.")
@click.option(
    "--tokenizer",
    "kind",
    metavar="gpt2|bpe|unigram|char|bytes|word|symbols|DIR|FILE.model",
    callback=note_kind,
    help="Tokenizer type, a folder with a tokenizer.json, or a SentencePiece model  [default: gpt2]",
)
@click.option(
    "--train",
    "train_kind",
    metavar="bpe|unigram|char|word|symbols",
    callback=note_kind,
    help="Learn a vocabulary and write nothing else.",
)
@parameter("tokenize.vocab_size")
@click.option(
    "--pattern",
    metavar="gpt2|digits|smollm|llama-bpe|qwen2|qwen35",
    help="With --train bpe: how text is cut into words; digits is gpt2 with each digit a word  [default: gpt2]",
)
@click.option(
    "--ties",
    metavar="bytes|hf",
    help="With --train bpe: numbering of the bytes; of equally frequent pairs the lowest is merged first  [default: bytes]",
)
@click.option("--chat", is_flag=True, help="Each FILE holds conversations: JSON Lines, or one JSON list.")
@click.option(
    "--format",
    "format",
    type=click.Choice(["messages", "alpaca"]),
    help='With --chat: {"messages": …}, {"prompt", "completion"}, {"text"} and {"prompt", "chosen", "rejected"}; or Alpaca\'s '
    "shape  [default: messages]",
)
@click.option(
    "--template",
    type=click.Choice(["chatml", "alpaca"]),
    help="With --chat: how a conversation is written  [default: that of the run --tokenizer, else chatml]",
)
@click.option("--labels", is_flag=True, help="Each FILE holds labeled texts: CSV with a header, or JSON Lines.")
@click.option("--text-column", metavar="NAME", help="With --labels: the column, or key, with the text  [default: text]")
@click.option("--label-column", metavar="NAME", help="With --labels: the column, or key, with the label  [default: label]")
@click.option("--parallel", is_flag=True, help="Each FILE holds parallel texts: a source, a tab and its target per line.")
@click.option("--strict", is_flag=True, help="With --chat: refuse what is otherwise cut or left out.")
@parameter("model.context_length")
@parameter("build-dataset.val_fraction")
@parameter("build-dataset.test_fraction")
@parameter("tokenize.errors")
@parameter("tokenize.shard_tokens")
@config_options()
def main(
    files: tuple[str, ...],
    output: Path | None,
    ids: bool,
    decode: bool,
    kind: str | None,
    train_kind: str | None,
    pattern: str | None,
    ties: str | None,
    chat: bool,
    format: str | None,
    template: str | None,
    labels: bool,
    text_column: str | None,
    label_column: str | None,
    parallel: bool,
    strict: bool,
    config: Config,
) -> None:
    """Turn text into token shards (-o) or into ids on stdout (--ids), or ids back into text (--decode).

    --train bpe --vocab-size N -o DIR only learns a vocabulary, for --tokenizer DIR. bpe and unigram learn from the start of
    the text, without the fractions that build-dataset will hold out for validation and test.

    --chat -o DIR takes conversations and marks what a model learns of them: the answers. With "chosen" and "rejected" an
    example is a pair of answers, for `train --task dpo`. A vocabulary without the special tokens of the template gets them.
    With --strict a conversation must fit into a window of --context-length + 1 tokens, and the answers of a pair must differ.

    --labels -o DIR takes labeled texts, for `train --task classify`.

    --parallel -o DIR takes pairs of a source and a target, for `train --task translate`. A line without a tab is a word and,
    after its first space, its pronunciation. JSON Lines have "prompt" and "completion".

    Each FILE is one document, and so is stdin (-). For shards, a byte-order mark and Project Gutenberg's headers and
    licenses are removed, and documents are separated by <|endoftext|> if the tokenizer has that token.
    """
    from lib.chat.template import choose_template
    from lib.data.conversations import conversations_summary, equal_pairs_notice, write_conversations
    from lib.data.corpus import (
        corpus_summary,
        decode_ids,
        encode_ids,
        replacement_notice,
        saved_tokenizer,
        write_corpus,
    )
    from lib.data.documents import cleaning_notices, open_documents, total_bytes
    from lib.data.labels import Columns, labels_summary, write_labeled
    from lib.data.parallel_lines import parallel_summary, write_parallel
    from lib.data.text import ReadCounter
    from lib.data.vocabulary import check_training, vocabulary_summary, write_tokenizer

    started = timestamp()
    if (output is not None) + ids + decode != 1:
        raise UsageError("give one of -o DIR, --ids and --decode; see `tokenize --help`")
    if not files and sys.stdin.isatty():
        raise UsageError("no FILE given and stdin is a terminal; for example `tokenize data/hamlet.txt -o DIR`")
    if kind is not None:
        check_one_value("--tokenizer", kind, "tokenize.tokenizer")
    tokenizer_name = config.tokenize.tokenizer if kind is None else kind
    check_training(train_kind, kind, pattern, ties, to_folder=output is not None)
    if chat and (output is None or train_kind is not None):
        raise UsageError("--chat makes shards; give -o DIR, without --train")
    if labels and (output is None or train_kind is not None or chat):
        raise UsageError("--labels makes shards of labeled texts; give -o DIR, without --train and --chat")
    if parallel and (output is None or train_kind is not None or chat or labels):
        raise UsageError("--parallel makes shards of parallel texts; give -o DIR, without --train, --chat and --labels")
    if not labels and (text_column or label_column):
        raise UsageError(f"--{'text' if text_column else 'label'}-column goes with --labels")
    if not chat and (format or template or strict):
        if strict and (labels or parallel):
            raise UsageError("--strict of tokenize goes with --chat; give it to build-dataset for labeled or parallel texts")
        raise UsageError(f"--{'format' if format else 'template' if template else 'strict'} goes with --chat")
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
            if train_kind is not None:
                manifest = write_tokenizer(
                    output,
                    documents,
                    config.tokenize,
                    config.build_dataset,
                    pattern=pattern or "gpt2",
                    ties=ties or "bytes",
                    started=started,
                )
                say(f"{output}: {vocabulary_summary(manifest)}")
                return
            with progress(total_bytes(documents), "bytes") as bar:
                if parallel:
                    manifest = write_parallel(
                        output, documents, tokenizer_name, config.tokenize, started=started, on_bytes=bar.advance
                    )
                    say(f"{output}: {parallel_summary(manifest)}")
                    return
                if labels:
                    columns = Columns(text_column or Columns.text, label_column or Columns.label)
                    manifest = write_labeled(
                        output,
                        documents,
                        saved_tokenizer(tokenizer_name, "--labels"),
                        columns,
                        config.tokenize,
                        started=started,
                        on_bytes=bar.advance,
                    )
                    say(f"{output}: {labels_summary(manifest)}")
                    return
                if chat:
                    manifest = write_conversations(
                        output,
                        documents,
                        tokenizer_name,
                        choose_template(template, Path(tokenizer_name)),
                        format or "messages",
                        config.tokenize,
                        config.build_dataset,
                        config.model.context_length + 1 if strict else None,
                        started=started,
                        on_bytes=bar.advance,
                    )
                    if left_out := equal_pairs_notice(manifest):
                        bar.note(left_out)
                    say(f"{output}: {conversations_summary(manifest)}")
                    return
                manifest = write_corpus(
                    output,
                    documents,
                    tokenizer_name,
                    config.tokenize,
                    config.build_dataset,
                    started=started,
                    on_bytes=bar.advance,
                )
        say(f"{output}: {corpus_summary(manifest)}")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
