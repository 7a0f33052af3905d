"""What pinned files are cleaned with after they are read from a package: `clean` in params.yaml names one of these."""

import csv
import re
from io import StringIO
from typing import Callable


def without_markdown(content: bytes) -> bytes:
    """A play as plain text: no heading marks, bold or italic marks, backslashes, or trailing double spaces."""
    text = re.sub(r"^#+ ", "", content.decode("utf-8"), flags=re.MULTILINE)
    text = text.replace("**", "").replace("_", "").replace("\\", "")
    return re.sub(r"  $", "", text, flags=re.MULTILINE).encode("utf-8")


def labeled_messages(content: bytes) -> bytes:
    """The SMS Spam Collection as CSV with the columns label, `ham` or `spam`, and text, one message per row.

    The package's copy has a number, 0 or 1, and a text per row. Where a message began with a quotation mark, its reader took
    all lines up to the next such mark for one text: these rows are split again where a line begins with a label and a tab.
    """
    rows = csv.reader(StringIO(content.decode("utf-8"), newline=""))
    next(rows)
    lines = StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["label", "text"])
    for _, is_spam, messages in rows:
        label = "spam" if is_spam == "1" else "ham"
        first, *others = re.split(r"\n(ham|spam)\t", messages)
        writer.writerows(zip([label, *others[::2]], [first, *others[1::2]], strict=True))
    return lines.getvalue().encode("utf-8")


def pronunciations(content: bytes) -> bytes:
    """The CMU Pronouncing Dictionary without stress: a word and the phonemes of one of its pronunciations per line.

    In the original another pronunciation of a word has a number, `read(2)`, the digits 0 to 2 of a vowel are its stress, and a
    comment begins with #. Pronunciations that differ in stress alone become one.
    """
    lines: dict[str, None] = {}  # in order, none twice
    for line in content.decode("utf-8").splitlines():
        word, *phonemes = line.partition("#")[0].split()
        lines[" ".join([re.sub(r"\(\d+\)$", "", word), *(phoneme.rstrip("012") for phoneme in phonemes)])] = None
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


CLEANERS: dict[str, Callable[[bytes], bytes]] = {
    "markdown": without_markdown,
    "sms_spam": labeled_messages,
    "cmudict": pronunciations,
}
