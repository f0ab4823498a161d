"""The page itself: what is where, and which event asks the desk for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from anchorseg.inference.inputs import Mode
from scripts.page.desk import Desk, View
from scripts.page.examples import Example
from scripts.page.wording import dialogue_html, notice_html
from utils.errors import UserError

MODES: list[tuple[str, Mode]] = [("The model decides", "auto"), ("A mask in any case", "mask"), ("Words alone", "text")]
KEPT_SECONDS = 3600
"""How long an uploaded file is kept."""
TITLE = "AnchorSeg"


@dataclass(frozen=True, kw_only=True)
class Results:
    """The components that show an answer."""

    notice: gr.HTML
    picture: gr.Image
    targets: gr.CheckboxGroup
    text: gr.Textbox
    dialogue: gr.HTML
    written: gr.Textbox
    maps: gr.Gallery
    overlay: gr.DownloadButton
    coco: gr.DownloadButton
    masks: gr.DownloadButton
    follow: gr.Button

    @property
    def components(self) -> list[Any]:
        """In the order of `updates`."""
        return [
            self.notice, self.picture, self.targets, self.text, self.dialogue, self.written, self.maps,
            self.overlay, self.coco, self.masks, self.follow,
        ]  # fmt: skip


def updates(view: View) -> list[Any]:
    """What each of the components shows."""
    files = view.downloads
    picture, coco, masks = (files.picture, files.coco, files.masks) if files else (None, None, None)
    kind = "found" if view.has_target else "none"
    labels = [(label, number) for number, label in enumerate(view.targets, start=1)]
    return [
        notice_html(view.notice, kind) if view.notice else "",
        None if files is None else str(files.screen),
        gr.CheckboxGroup(choices=labels, value=view.shown, visible=bool(labels)),
        view.text,
        dialogue_html(view.dialogue[:-1]),
        view.written,
        [(item.picture, item.caption) for item in view.maps],
        _download(picture),
        _download(coco),
        _download(masks),
        gr.Button(interactive=bool(view.dialogue)),
    ]


def _download(path: Path | None) -> gr.DownloadButton:
    return gr.DownloadButton(value=None if path is None else str(path), interactive=path is not None)


def _answered(serve: Callable[[], View]) -> list[Any]:
    """What is shown, or one sentence for what the visitor can mend."""
    try:
        return updates(serve())
    except UserError as error:
        raise gr.Error(str(error), duration=15, print_exception=False) from None


def _path(upload: Any) -> str | None:
    """The file of an image component's value as it is sent; it is not decoded before its size is known."""
    path = upload.get("path") if isinstance(upload, dict) else None
    return path if isinstance(path, str) else None


def build_page(desk: Desk, examples: Sequence[Example], *, about: str) -> gr.Blocks:
    """The page of a desk.

    Args:
        desk: that serves.
        examples: images with questions to begin with.
        about: a line below the title.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {TITLE}\n{about}", elem_id="title")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=4, min_width=300, elem_id="left"):
                image, question, mode, ask, follow = _inputs(desk)
                samples = [[str(path), asked] for path, asked in examples]
                gr.Examples(samples, [image, question], label="Examples", elem_id="examples")
            with gr.Column(scale=6, min_width=320, elem_id="right"):
                results = _results(follow)
        _connect(page, desk, (image, question, mode), ask, results)
    return page


def _inputs(desk: Desk) -> tuple[gr.Image, gr.Textbox, gr.Radio, gr.Button, gr.Button]:
    limits = desk.limits
    image = gr.Image(
        label="Image", type="filepath", sources=["upload", "clipboard"], height=300, buttons=[], elem_id="image",
        placeholder=f"Drop an image here, or click.\nAt most {limits.upload_mb:g} MB and {limits.pixels / 1e6:g} "
        "million pixels.",
    )  # fmt: skip
    question = gr.Textbox(
        label="Question", placeholder="the red cup", lines=2, max_lines=4, max_length=limits.question,
        submit_btn=False, elem_id="question",
    )  # fmt: skip
    mode = gr.Radio(MODES, value="auto", label="Answer", elem_id="mode")
    with gr.Row():
        ask = gr.Button("Ask", variant="primary", elem_id="ask")
        follow = gr.Button("Follow up", interactive=False, elem_id="follow")
    return image, question, mode, ask, follow


def _results(follow: gr.Button) -> Results:
    notice = gr.HTML(elem_id="notice")
    picture = gr.Image(
        label="Answer", type="filepath", format="png",
        interactive=False, height=420, buttons=["fullscreen"], elem_id="result",
    )  # fmt: skip
    targets = gr.CheckboxGroup(
        [], label="Targets (a click here or in the picture hides one)", visible=False, elem_id="targets"
    )
    text = gr.Textbox(label="Answer in words", interactive=False, lines=1, max_lines=6, elem_id="text")
    with gr.Row():
        overlay, coco, masks = (
            gr.DownloadButton(label, interactive=False, size="sm", min_width=120, elem_id=name)
            for label, name in (("Picture (PNG)", "png"), ("Results (COCO)", "coco"), ("Masks (ZIP)", "masks"))
        )
    dialogue = gr.HTML(elem_id="dialogue")
    with gr.Accordion("Spatial prior and maps of the tokens", open=False, elem_id="maps"):
        maps = gr.Gallery(
            format="jpeg", columns=4, height="auto", show_label=False, buttons=["fullscreen"], elem_id="gallery"
        )
    with gr.Accordion("As the model wrote it", open=False, elem_id="raw"):
        written = gr.Textbox(show_label=False, interactive=False, lines=1, max_lines=8, elem_id="written")
    return Results(
        notice=notice, picture=picture, targets=targets, text=text, dialogue=dialogue, written=written, maps=maps,
        overlay=overlay, coco=coco, masks=masks, follow=follow,
    )  # fmt: skip


def _connect(page: gr.Blocks, desk: Desk, inputs: tuple[Any, Any, Any], ask: gr.Button, results: Results) -> None:
    image, question, _ = inputs

    def opened(upload: Any, request: gr.Request) -> list[Any]:
        return _answered(lambda: desk.open(_visitor(request), _path(upload)))

    def asked(upload: Any, words: Any, how: Any, request: gr.Request) -> list[Any]:
        return _answered(lambda: desk.ask(_visitor(request), _path(upload), words, how, follow=False))

    def followed(upload: Any, words: Any, how: Any, request: gr.Request) -> list[Any]:
        return _answered(lambda: desk.ask(_visitor(request), _path(upload), words, how, follow=True))

    def chosen(numbers: Any, request: gr.Request) -> list[Any]:
        shown = [number for number in numbers or () if isinstance(number, int)]
        return _answered(lambda: desk.show(_visitor(request), shown))

    def clicked(where: gr.SelectData, request: gr.Request) -> list[Any]:
        x, y = where.index
        return _answered(lambda: desk.click(_visitor(request), x, y))

    def left(request: gr.Request) -> None:
        desk.visits.forget(_visitor(request))

    # preprocess=False: the framework would decode an image before its size is known.
    shared: dict[str, Any] = {
        "outputs": results.components, "preprocess": False, "show_progress": "minimal",
        "show_progress_on": results.picture, "api_visibility": "undocumented",
    }  # fmt: skip
    image.change(opened, image, api_name="open", **shared)
    gr.on([ask.click, question.submit], asked, list(inputs), api_name="ask", concurrency_id="model", **shared)
    results.follow.click(followed, list(inputs), api_name="follow_up", concurrency_id="model", **shared)
    results.targets.input(chosen, results.targets, api_name="show", **shared)
    results.picture.select(clicked, None, api_name="click", **shared)
    page.unload(left)


def _visitor(request: gr.Request) -> str:
    """The session that the browser's tab began."""
    return str(request.session_hash)
