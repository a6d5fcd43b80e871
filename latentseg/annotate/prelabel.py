"""Predict images, and write what is sure enough as proposals that an annotation tool imports."""

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latentseg.annotate.formats import FORMATS, Document, path_of
from latentseg.annotate.plan import Plan
from latentseg.annotate.proposals import OPEN, Proposed
from latentseg.annotate.target import Labels, Sizes
from latentseg.console import track
from latentseg.data.ahead import in_threads
from latentseg.data.files import is_file
from latentseg.engine import full_speed
from latentseg.errors import DataError, UserError
from latentseg.inference.jobs import grouped, tell_skipped, without_masks
from latentseg.inference.model import Model
from latentseg.inference.pictures import unfinished, unwritten, write_whole
from latentseg.inference.predict import Named, reading
from latentseg.inference.tiles import no_memory
from latentseg.models.segmenter import Output

Failures = dict[Path, UserError]


class Encoded(NamedTuple):
    """An image as the format has it."""

    proposed: Proposed
    name: Path
    content: bytes | None


def prelabel(model: Model, plan: Plan) -> int:
    """Write the proposals for all images of a plan; nothing is overwritten, and few images are in memory at a time.

    Args:
        model: From `load`.
        plan: What is to be written where.

    Returns:
        Number of images that were written; one without any proposal counts.

    Raises:
        UserError: A file of labels is there for other classes, or the results cannot be written.
        DataError: After all others are written: images that cannot be read or predicted in memory.
    """
    plan = replace(plan, jobs=without_masks(plan.jobs, model.run.config.data))
    labels = Labels(model.classes, model.run.palette, model.run.folder.name, plan.images, plan.out)
    further = _beside(plan, labels)
    tell_skipped([plan.images])
    failures: Failures = {}
    files = FORMATS[plan.name].files
    with full_speed(), closing(_encoded(model, plan, labels, failures)) as encoded:
        if isinstance(files, Document):
            count = _write_document(files, plan.out / files.name, labels, encoded)
        else:
            count = sum(_write_file(plan, each, failures) for each in encoded)
    for path, content in further.items() if count else ():
        write_whole(path, content)
    if failures:
        state = f"the proposals for the others are in {plan.out}" if count else "nothing is written"
        raise DataError(
            f"{len(failures)} of {len(plan.jobs)} images have no proposals",
            f"{state}:\n{grouped({path: failures[path] for path in plan.jobs.values() if path in failures})}",
        )
    return count


def _beside(plan: Plan, labels: Labels) -> dict[Path, bytes]:
    """The further files that are not there yet.

    Raises:
        UserError: One is there with another content.
    """
    found: dict[Path, bytes] = {}
    for name, content in FORMATS[plan.name].beside(labels).items():
        path = plan.out / name
        if not is_file(path):
            found[path] = content
        elif path.read_bytes() != content:
            raise UserError(f"{path} exists with other classes, and is not overwritten: name another folder with --out")
    return found


def _encoded(model: Model, plan: Plan, labels: Labels, failures: Failures) -> Generator[Encoded, None, None]:
    """The images as the format has them; those that fail are added to `failures`."""
    read, failed = reading(model, plan.jobs, failures)
    numbers = {name: number for number, name in enumerate(plan.jobs, start=1)}
    encode = FORMATS[plan.name].encode

    def finish(predicted: tuple[Named, Output]) -> Encoded | None:
        (name, _), maps = predicted
        assert maps.latent is not None
        source, probs = plan.jobs[name], maps.latent.numpy()
        try:
            ids = np.where(probs >= plan.threshold, maps.semantic.numpy(), np.uint8(OPEN))
            proposed = Proposed(source.relative_to(plan.images), numbers[name], ids, probs)
            return Encoded(proposed, name, encode(labels, proposed))
        except MemoryError:
            failures[source] = no_memory(source, "to write its proposals")
        except ValueError as error:  # letters that are no Unicode, too
            failures[source] = DataError("has a name that the format cannot hold", "rename it", source, str(error))
        return None

    stream = model.stream(plan.jobs, read, failed=failed, predict=model.confident)
    with closing(in_threads(finish, track(stream, "predicting", len(plan.jobs)))) as finished:
        yield from (each for each in finished if each is not None)


def _write_file(plan: Plan, each: Encoded, failures: Failures) -> bool:
    try:
        if each.content is not None:
            write_whole(path_of(plan.out, plan.name, each.name), each.content)
    except DataError as error:
        failures[plan.jobs[each.name]] = error
        return False
    return True


def _write_document(document: Document, path: Path, labels: Labels, encoded: Iterator[Encoded]) -> int:
    """Write the document of all images as they come, whole or not at all, and give their number."""
    sizes: Sizes = {}
    temporary = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(document.head(labels))
            between = b""
            for proposed, _, content in encoded:
                height, width = proposed.ids.shape
                sizes[proposed.number] = proposed.image, (height, width)
                if content is not None:
                    file.write(between + content)
                    between = document.between
            file.write(document.tail(labels, sizes))
        if sizes:
            temporary.replace(path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return len(sizes)
