"""The folder of an analysis, RUN/analysis: figures as JSON, words, P(l|c) as CSV and as heat maps.

A split other than val has a folder of its own (analysis-SPLIT), and so has the best checkpoint (analysis-best,
analysis-SPLIT-best). A new analysis replaces the old one.
"""

import csv
import io
import json
from pathlib import Path

from latentseg.analysis.findings import IGNORED, Analysis
from latentseg.analysis.stats import Rows
from latentseg.errors import RunError
from latentseg.reading import read_whole
from latentseg.runs.checkpoints import write_atomically

FIGURES, WORDS, PICTURE = "analysis.json", "summary.txt", "latent_given_class.png"
MATRIX, MATRIX_OF_M = "latent_given_class.csv", "latent_given_class_M.csv"


def analysis_folder(run: Path, split: str, checkpoint: str = "last") -> Path:
    """The folder for the analysis of a run on a split."""
    parts = ["analysis", *([split] if split != "val" else []), *(["best"] if checkpoint == "best" else [])]
    return run / "-".join(parts)


def write_analysis(result: Analysis, folder: Path) -> None:
    """Write an analysis into its folder, which exists; analysis.json last."""
    from latentseg.analysis.heatmap import draw  # noqa: PLC0415 - Matplotlib takes half a second

    found = result.structure
    matrices: dict[str, Rows | None] = {
        MATRIX: [*found.latent_given_class, found.ignored],
        MATRIX_OF_M: result.latent_given_class_m,
    }
    for name, rows in matrices.items():
        if rows is None:
            (folder / name).unlink(missing_ok=True)  # of an analysis that was here before
        else:
            write_atomically(folder / name, _csv(result, rows).encode())
    picture = io.BytesIO()
    draw(result).savefig(picture, format="png")
    write_atomically(folder / PICTURE, picture.getvalue())
    write_atomically(folder / WORDS, f"{result.text()}\n".encode())
    write_atomically(folder / FIGURES, json.dumps(result.to_dict(), indent=1, allow_nan=False).encode())


def read_analysis(folder: Path) -> Analysis | None:
    """Read an analysis back; None if there is none.

    Raises:
        RunError: It is damaged, or of another version of this package.
    """
    path = folder / FIGURES
    try:
        return Analysis.from_dict(dict(json.loads(read_whole(path))))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise RunError(
            f"{path} is damaged or of another version ({reason}); make it anew: latentseg analyse {folder.parent}"
        ) from error


def _csv(result: Analysis, rows: Rows) -> str:
    """P(l|c) in the order of the blocks; empty cells for a class that was not seen, ignored pixels in the last row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = result.structure.column_order
    writer.writerow(["class", *(harmless(result.latent_names[column]) for column in columns)])
    names = [*result.classes, IGNORED]
    for number in [*result.structure.row_order, len(result.classes)][: len(rows)]:
        row = rows[number]
        writer.writerow([harmless(names[number]), *("" if row is None else f"{row[column]:.6f}" for column in columns)])
    return text.getvalue()


def harmless(name: str) -> str:
    """A cell that a spreadsheet shows instead of computing it: with a quote before what begins as a formula does."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name
