"""`mage predict`: the class of every image of a folder, in a table."""

import mage
from mage import runs
from mage.cli.arguments import precision_of
from mage.cli.console import emit
from mage.cli.embed import listing, sentence_of, values_of
from mage.cli.options.predict import Options
from mage.evaluation.confusion import with_interval
from mage.runs.predict import agreement
from mage.runs.rows import precision_in


def run(options: Options) -> None:
    """Predict, and compare with the sub-folders where they are the classes."""
    precision = precision_of(options, precision_in(options.out))
    classifier = mage.load_classifier(options.model, precision=precision, device=options.device)
    table = listing(options, lambda **more: runs.predict(classifier, options.data, options.out, **more))
    values, lines = values_of(table), [sentence_of(table, "classes")]
    if (answers := agreement(table, classifier.class_names)) is not None:
        values |= {"accuracy": answers.right / answers.images, **answers.as_dict(), "images": table.images}
        lines.append(f"as their sub-folders say: {with_interval(answers.right, answers.images)}")
        lines.append(answers.sentence())
    emit(options, values, "\n".join(filter(None, lines)))
