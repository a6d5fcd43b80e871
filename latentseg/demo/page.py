"""The page: a photograph and its maps, a folder of images, and what the latent classes mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from latentseg.analysis.files import PICTURE, analysis_folder, read_analysis
from latentseg.analysis.findings import Analysis
from latentseg.demo.answer import MOST_PIXELS, answer, data_uri, latent_names, thumbnail
from latentseg.errors import UserError
from latentseg.inference.model import Model

HERE = Path(__file__).parent
PER_PAGE = 12
"""Pictures of the folder that are shown, and predicted, at once."""
WAITING = 64
"""Questions that may wait for their turn; the next one is told to come later."""
UNREADABLE = np.full((120, 160, 3), 128, np.uint8)
"""In the place of a picture that cannot be read."""
CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1280px !important; }
#gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) !important; }
.heat-map { overflow-x: auto; }
.heat-map img { width: 100%; min-width: 760px; background: white; border-radius: 8px; }
#viewer, #viewer > * { padding: 0 !important; }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""


@dataclass(frozen=True)
class Content:
    """What the page is made of."""

    models: Mapping[str, Model]
    """One run, or two of the same classes, by name; the first is the one that the page is about."""
    checkpoint: str
    examples: Sequence[Path]
    """Photographs to begin with; the browser may read them."""
    folder: Path | None
    """Of the gallery."""
    images: Sequence[Path]
    """The images in it."""


def build(content: Content) -> gr.Blocks:
    """Lay out the page.

    Gradio keeps uploads for an hour. One question is answered at a time: PyTorch takes all cores for it.
    """
    name, model = next(iter(content.models.items()))
    answered = _answered(content)
    page = gr.Blocks(title=f"latentseg: {name}", analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.Markdown(_heading(content))
        with gr.Tabs() as tabs:
            with gr.Tab("Photo", id="photo"):
                viewer = _photo(content, answered)
            if content.folder is not None:
                with gr.Tab("Folder", id="folder") as tab:
                    _folder(content, tab, tabs, viewer, answered)
            if model.segmenter.num_latent:
                with gr.Tab("Latent classes", id="latent"):
                    _latent(model, content.checkpoint)
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    return page


def _heading(content: Content) -> str:
    """Names of the runs, their methods and steps."""
    named = {escape(name): model for name, model in content.models.items()}
    methods = [f"{name}: {model.run.config.method.name}, step {model.step}" for name, model in named.items()]
    classes = len(next(iter(named.values())).classes)
    return f"# {' beside '.join(named)}\n{'; '.join(methods)}. {classes} classes."


def _answered(content: Content) -> Callable[[Path | None], str]:
    """`answer` of the page's runs."""
    meanings = {name: _meanings(model, content.checkpoint) for name, model in content.models.items()}
    return lambda path: answer(content.models, meanings, path)


def _photo(content: Content, answered: Callable[[Path | None], str]) -> gr.HTML:
    """The photograph at the left, or above on a phone, and its maps."""

    def segment(photo: dict[str, Any] | None) -> str:
        """Segment a photograph; the answer is JSON: see `latentseg.demo.answer`."""
        return answered(Path(photo["path"]) if photo and photo.get("path") else None)

    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            photo = gr.Image(
                label="Photo", type="filepath", image_mode=None, height=260, buttons=[],
                sources=["upload", "webcam", "clipboard"],
            )  # fmt: skip
            gr.Examples([[str(path)] for path in content.examples], photo, label="Examples", cache_examples=False)
            gr.Markdown(f"Files of at most {MOST_PIXELS // 10**6} million pixels. Nothing leaves this machine.")
        with gr.Column(scale=2, min_width=300):
            viewer = gr.HTML(
                html_template=_text("viewer.html"), css_template=_text("viewer.css"), js_on_load=_text("viewer.js"),
                apply_default_css=False, elem_id="viewer",
            )  # fmt: skip
    # Gradio's own reading of the file would end in an error that explains nothing; where it lies is checked before.
    photo.change(segment, photo, viewer, preprocess=False, concurrency_id="model", api_name="segment")
    return viewer


def _folder(
    content: Content, tab: gr.Tab, tabs: gr.Tabs, viewer: gr.HTML, answered: Callable[[Path | None], str]
) -> None:
    """A gallery of the folder, a page at a time; a picture that is chosen is shown in the first tab."""
    model, pages = next(iter(content.models.values())), -(-len(content.images) // PER_PAGE)

    def of_page(number: float) -> Sequence[Path]:
        first = PER_PAGE * (max(1, min(int(number), pages)) - 1)
        return content.images[first : first + PER_PAGE]

    def browse(number: float) -> list[tuple[NDArray[np.uint8], str]]:
        return [_captioned(model, path, content.folder or path) for path in of_page(number)]

    def choose(number: float, chosen: gr.SelectData) -> tuple[str, Any]:
        paths, index = of_page(number), chosen.index
        path = paths[index] if isinstance(index, int) and 0 <= index < len(paths) else None
        return answered(path), gr.Tabs(selected="photo")

    gr.Markdown(f"{len(content.images)} images. Choose one to see it with all its maps.")
    number = gr.Slider(1, max(2, pages), value=1, step=1, label="Page", visible=pages > 1)
    gallery = gr.Gallery(
        label="Classes over the images", show_label=False, format="jpeg", columns=4, height="auto", allow_preview=False,
        interactive=False, buttons=[], elem_id="gallery",
    )  # fmt: skip
    for event in (tab.select, number.release):
        event(browse, number, gallery, concurrency_id="model", api_visibility="private")
    gallery.select(choose, number, [viewer, tabs], concurrency_id="model", api_visibility="private")


def _captioned(model: Model, path: Path, folder: Path) -> tuple[NDArray[np.uint8], str]:
    """A picture of the gallery and its name; a grey one for a file that cannot be read."""
    picture, name = thumbnail(model, path), str(path.relative_to(folder))
    return (UNREADABLE, f"{name}: cannot be read") if picture is None else (picture, name)


def _latent(model: Model, checkpoint: str) -> None:
    """P(l|c) and the groups in words, if `latentseg analyse` has written them."""
    folder = analysis_folder(model.run.folder, "val", checkpoint)
    found = _analysis(model, checkpoint)
    if found is None:
        best = " --checkpoint best" if checkpoint == "best" else ""
        command = f"latentseg analyse {model.run.folder}{best}"
        gr.Markdown(
            f"What the latent classes mean is not known yet. Run this, then start the page again:\n\n`{command}`"
        )
        return
    gr.Markdown(f"## Super-categories\n{_listed(found.groups())}\n\n## Findings\n{_listed(found.facts())}")
    picture = folder / PICTURE
    if picture.is_file():
        words = escape("; ".join(found.groups()))
        gr.Markdown("## P(l|c)\nHow much of each class (row) lies in each latent class (column).")
        gr.HTML(
            f'<div class="heat-map" tabindex="0" role="region" aria-label="Heat map of P(l|c)">'
            f'<img alt="{words}" src="{data_uri("png", picture.read_bytes())}"></div>'
        )


def _listed(lines: Sequence[str]) -> str:
    """Lines as a Markdown list, their signs as they are."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def _analysis(model: Model, checkpoint: str) -> Analysis | None:
    """What `latentseg analyse` wrote; None without one, or if it is damaged: the page does without."""
    try:
        return read_analysis(analysis_folder(model.run.folder, "val", checkpoint))
    except UserError:
        return None


def _meanings(model: Model, checkpoint: str) -> list[str]:
    """Names of the latent classes, with the classes of their group where an analysis tells them."""
    names, found = latent_names(model), _analysis(model, checkpoint)
    for group in found.structure.groups if found is not None else ():
        if group.latent < len(names) and names[group.latent] not in group.classes:
            names[group.latent] = f"{names[group.latent]} ({' + '.join(group.classes)})"
    return names


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
