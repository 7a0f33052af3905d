"""The evaluation of a classifier as lines for a terminal."""

from lib.evaluate.classification import ClassEvaluation

_MOST_COLUMNS = 12  # classes of which a confusion matrix is shown


def classification_table(name: str, evaluation: ClassEvaluation) -> list[str]:
    """The evaluation as lines: model and baselines, the confusion matrix, the scores of each class."""
    rows = [(name, evaluation.accuracy, evaluation.interval, "")]
    for baseline, score in evaluation.baselines.items():
        remark = f"+{score.right_alone} -{score.model_right_alone}" + ("" if score.significant else " (n.s.)")
        rows.append((baseline, score.accuracy, score.interval, remark))
    rows.sort(key=lambda row: -row[1])
    width = max(len(row[0]) for row in rows)
    lines = [f"{evaluation.split} split, {evaluation.texts:,} texts", ""]
    lines.append(f"{'':{width}}  accuracy  95% interval      texts right that {name} has wrong, and the reverse")
    lines += [f"{row[0]:{width}}  {row[1]:7.2%}   {row[2][0]:6.2%} to {row[2][1]:7.2%}   {row[3]}".rstrip() for row in rows]
    return [*lines, "", *_confusion_lines(evaluation), *_notes(evaluation)]


def _confusion_lines(evaluation: ClassEvaluation) -> list[str]:
    names = evaluation.classes
    width = max(len("label"), *map(len, names))
    cell = max(7, *map(len, names))
    columns = names if len(names) <= _MOST_COLUMNS else ()
    lines = [f"{'label':{width}}  " + "  ".join(f"{name:>{cell}}" for name in (*columns, "precision", "recall", "F1"))]
    for name, row in zip(names, evaluation.confusion, strict=True):
        score = evaluation.scores[name]
        numbers = ["-" if value is None else f"{value:.2%}" for value in (score.precision, score.recall, score.f1)]
        lines.append(
            f"{name:{width}}  " + "  ".join(f"{item:>{cell}}" for item in (*(f"{n:,}" for n in row[: len(columns)]), *numbers))
        )
    return lines


def _notes(evaluation: ClassEvaluation) -> list[str]:
    seen = evaluation.seen_texts
    return [f"{seen:,} of the {evaluation.texts:,} texts are in the training split too, word for word"] if seen else []
