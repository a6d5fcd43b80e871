"""What was chosen: as a table, in words, and as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from latentseg.runs.folder import Run
from latentseg.suggest.candidates import told
from latentseg.suggest.ranking import SHOWN, WAYS, Known, Pick, Pool

LIST, FIGURES, SHEET = "suggest.txt", "suggest.json", "suggest.png"


@dataclass(frozen=True)
class Suggestion:
    """The chosen images, the best first."""

    images: list[Path]
    picks: list[Pick]
    reasons: list[list[str]]
    pool: Pool
    known: Known
    classes: tuple[str, ...]
    left_out: dict[str, int]
    folder: Path | None = None
    """Where it is written."""

    def __repr__(self) -> str:
        return f"Suggestion({len(self.images)} of {len(self.pool.features)} images, {self.folder})"

    def table(self) -> Table:
        """What the choice is predicted to contain, class by class, beside what is labelled."""
        chosen = [pick.index for pick in self.picks]
        shown = (self.pool.won[chosen] >= SHOWN).sum(0)
        shares, labelled = self.pool.expected[chosen].mean(0), self.known.pixels / max(self.known.pixels.sum(), 1e-9)
        table = Table(title=f"{len(chosen)} of {len(self.pool.features)} images, as they are predicted")
        for head in ("class", "images", "% of pixels", "% of labelled pixels"):
            table.add_column(head, justify="left" if head == "class" else "right")
        for c, name in enumerate(self.classes):
            before = f"{100 * labelled[c]:.1f}" if self.known.pixels.any() else "-"
            table.add_row(Text(name), str(shown[c]), f"{100 * shares[c]:.1f}", before)
        return table

    def told(self) -> str:
        """How many were chosen, how many left out and why, and where the files are."""
        out = f"; left out: {told(self.left_out)}" if self.left_out else ""
        where = self.folder / LIST if self.folder else "memory"
        return f"{len(self.images)} of {len(self.pool.features)} images in {where}{out}"

    def to_json(self, run: Run, by: str, step: int) -> str:
        """Figures and reasons of every chosen image."""
        way, images = WAYS[by], list[dict[str, Any]]()
        for rank, (path, pick, why) in enumerate(zip(self.images, self.picks, self.reasons, strict=True), start=1):
            expected = zip(self.classes, self.pool.expected[pick.index].tolist(), strict=True)
            images.append(
                {
                    "rank": rank,
                    "image": str(path),
                    "value": round(pick.value, 5),
                    "reasons": why,
                    "above": {name: round(value, 4) for name, value in pick.places.items()},
                    "signals": {name: round(float(of[pick.index]), 5) for name, of in self.pool.signals.items()},
                    "expected": {name: round(share, 4) for name, share in expected},
                }
            )
        head = {"run": str(run.folder), "step": step, "by": by, "weights": way.weights, "spread": way.spread}
        counts = {"looked_at": len(self.pool.features), "left_out": self.left_out}
        return json.dumps(head | counts | {"images": images}, indent=1, ensure_ascii=False)
