"""Pictures that show at a glance what was asked, what is true and what was answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from utils import metrics
from utils.lettering import BOLD, Colour, Image, draw_text, line_height, text_block, text_width, wrap

BoolMask = npt.NDArray[np.bool_]

TRUTH_COLOUR: Final = (0, 190, 110)
PREDICTION_COLOUR: Final = (255, 110, 0)
TARGET_COLOURS: Final = (
    (0, 150, 90), (215, 80, 0), (40, 95, 215), (190, 40, 140),
    (120, 85, 0), (0, 135, 150), (115, 60, 200), (200, 30, 50),
)  # fmt: skip
"""Of several targets of one picture, in turn; white letters can be read on each."""
_INK, _GREY, _RULE = (25, 28, 33), (105, 110, 118), (205, 208, 212)
_COLOUR_MAP = cv2.COLORMAP_INFERNO

# In pixels: the range of a picture's longest side, and the least width of a column, which its legend needs.
_LONGEST, _SHORTEST_COLUMN = (420, 640), 260
_MARGIN, _GAP = 18, 14
_QUERY_SIZE, _TITLE_SIZE, _NOTE_SIZE = 22, 17, 15


class _NotAsked:
    """Type of the value of what is left out: no model was asked, no IoU given; None is an answer: no target, no IoU."""


NOT_ASKED: Final = _NotAsked()


@dataclass(frozen=True, kw_only=True)
class _Tile:
    title: str
    picture: Image
    note: str = ""
    swatch: Colour | None = None
    legend: tuple[str, str] | None = None
    """Labels of the two ends of the colour bar below the picture."""


def panel(
    image_rgb: Image,
    query: str,
    *,
    truth: BoolMask | None = None,
    prediction: BoolMask | _NotAsked | None = NOT_ASKED,
    ignore: BoolMask | None = None,
    prior: npt.NDArray[np.floating] | None = None,
    iou: float | _NotAsked | None = NOT_ASKED,
    score: float | None = None,
    caption: str = "",
) -> Image:
    """Draw one question and its answer.

    Args:
        image_rgb: (H, W, 3) uint8.
        query: the question or the description of the target, in any script; printed above.
        truth: (H, W) boolean, or None when unknown. An empty mask means that there is no target.
        prediction: (H, W) boolean; None when the model answered that there is no target; left out when no
            model was asked. With `truth` its IoU is printed.
        ignore: (H, W) boolean, True where `truth` does not say; greyed, and left out of the IoU.
        prior: (h, w) finite numbers of any range over the whole image, such as the model's spatial prior;
            shown from its lowest to its highest value.
        iou: the IoU that a benchmark has counted by its own rule, printed instead of that of the two masks; None
            where it counts none.
        score: the model's own confidence in the prediction, 0 to 1.
        caption: small print below, e.g. the name of the sample.

    Returns:
        RGB uint8 picture; its size depends on the inputs.

    Raises:
        ValueError: if the image is not (H, W, 3) uint8, a mask is not boolean or not of the image's size, or
            the prior is not a finite matrix.
    """
    _check_image(image_rgb)
    size = image_rgb.shape[:2]
    base = _rescaled(image_rgb)
    tiles = [_Tile(title="Image", picture=base)]
    greyed = base if ignore is None else _greyed(base, _fitted(ignore, size, base, "ignore mask"))
    if truth is not None:
        picture = _mask_picture(greyed, _fitted(truth, size, base, "truth"), TRUTH_COLOUR, "no target")
        note = "grey: not scored" if ignore is not None and ignore.any() else ""
        tiles.append(_Tile(title="Truth", picture=picture, note=note, swatch=TRUTH_COLOUR))
    if not isinstance(prediction, _NotAsked):
        answer = np.zeros(size, np.bool_) if prediction is None else prediction
        stamp = "no target" if prediction is None else "empty mask"
        picture = _mask_picture(greyed, _fitted(answer, size, base, "prediction"), PREDICTION_COLOUR, stamp)
        note = _prediction_note(_overlap(answer, truth, ignore) if isinstance(iou, _NotAsked) else iou, score)
        tiles.append(_Tile(title="Prediction", picture=picture, note=note, swatch=PREDICTION_COLOUR))
    if prior is not None:
        tiles.append(_map_tile(base, prior, "Spatial prior"))
    return _assembled(tiles, query, caption)


def response_sheet(
    image_rgb: Image,
    query: str,
    maps: Mapping[str, npt.NDArray[np.floating]],
    *,
    prediction: BoolMask,
    truth: BoolMask | None = None,
    columns: int = 5,
) -> Image:
    """Draw what the tokens of a query bank look at, one map beside the other.

    Args:
        image_rgb: (H, W, 3) uint8.
        query: printed above.
        maps: by title, (h, w) finite numbers over the whole image, as the prior of `panel`.
        prediction: (H, W) boolean.
        truth: (H, W) boolean, or None when unknown.
        columns: pictures in a row.

    Returns:
        RGB uint8 picture.

    Raises:
        ValueError: see `panel`.
    """
    _check_image(image_rgb)
    size, base = image_rgb.shape[:2], _rescaled(image_rgb)
    tiles = [_Tile(title="Image", picture=base)]
    for title, mask, colour in (("Truth", truth, TRUTH_COLOUR), ("Prediction", prediction, PREDICTION_COLOUR)):
        if mask is not None:
            picture = _mask_picture(base, _fitted(mask, size, base, title.lower()), colour, "empty mask")
            tiles.append(_Tile(title=title, picture=picture, swatch=colour))
    tiles += [_map_tile(base, values, title) for title, values in maps.items()]
    padded = [np.pad(_column(tile), ((_GAP, 0), (_GAP, _GAP), (0, 0)), constant_values=255) for tile in tiles]
    sheet = contact_sheet(padded, columns)
    question = wrap(query, _QUERY_SIZE, sheet.shape[1] - 2 * _GAP, weight=BOLD)
    head = text_block(question, _QUERY_SIZE, sheet.shape[1] - 2 * _GAP, _INK, BOLD)
    return np.concatenate([np.pad(head, ((_GAP, 0), (_GAP, _GAP), (0, 0)), constant_values=255), sheet])


def targets_picture(image_rgb: Image, masks: npt.NDArray[np.bool_], ignore: BoolMask | None = None) -> Image:
    """Draw all targets of an image, each in its colour of `TARGET_COLOURS` with its number, counted from 1.

    Args:
        image_rgb: (H, W, 3) uint8.
        masks: (n, H, W) boolean; large ones lie below small ones.
        ignore: (H, W) boolean, greyed, or None.

    Returns:
        RGB uint8 picture, at most 640 pixels on its longest side.

    Raises:
        ValueError: see `panel`.
    """
    _check_image(image_rgb)
    size, picture = image_rgb.shape[:2], _rescaled(image_rgb)
    if ignore is not None:
        picture = _greyed(picture, _fitted(ignore, size, picture, "ignore mask"))
    # One at a time: a record may have hundreds of masks.
    order = [index for index in np.argsort(-masks.sum(axis=(1, 2))).tolist() if masks[index].any()]
    for index in order:
        mask, colour = _fitted(masks[index], size, picture, "mask"), TARGET_COLOURS[index % len(TARGET_COLOURS)]
        picture[mask] = (0.5 * picture[mask] + 0.5 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, (255, 255, 255), 3, cv2.LINE_AA)
        cv2.drawContours(picture, contours, -1, colour, 2, cv2.LINE_AA)
    for index in order:
        mask = _fitted(masks[index], size, picture, "mask")
        _numbered(picture, mask, str(index + 1), TARGET_COLOURS[index % len(TARGET_COLOURS)])
    return picture


def _numbered(picture: Image, mask: BoolMask, text: str, colour: Colour) -> None:
    """Write a number on its colour where a mask is broadest."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    width, height = text_width(text, _NOTE_SIZE, BOLD), line_height(_NOTE_SIZE)
    left = min(max(int(column) - width // 2, 4), max(picture.shape[1] - width - 4, 0))
    top = min(max(int(row) - height // 2, 1), max(picture.shape[0] - height - 1, 0))
    cv2.rectangle(picture, (left - 4, top), (left + width + 3, top + height), colour, -1)
    draw_text(picture, text, (left, top), _NOTE_SIZE, (255, 255, 255), BOLD)


def contact_sheet(panels: Sequence[Image], columns: int) -> Image:
    """Arrange pictures in rows of `columns` on white, each cell as large as its row and column need.

    Raises:
        ValueError: if there are no pictures, `columns` is below 1 or a picture is not (H, W, 3) uint8.
    """
    if not panels or columns < 1:
        raise ValueError(f"A contact sheet needs pictures and columns, got {len(panels)} and {columns}.")
    for picture in panels:
        _check_image(picture)
    rows = [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]
    widths = [max(row[index].shape[1] for row in rows if index < len(row)) for index in range(len(rows[0]))]
    strips = []
    for row in rows:
        height = max(picture.shape[0] for picture in row)
        strip = np.full((height, sum(widths) + len(widths) - 1, 3), 255, np.uint8)
        left = 0
        for picture, width in zip(row, widths, strict=False):
            strip[: picture.shape[0], left : left + picture.shape[1]] = picture
            left += width
            strip[:, left : left + 1] = _RULE
            left += 1
        strips += [strip, np.full((1, strip.shape[1], 3), _RULE, np.uint8)]
    return np.concatenate(strips[:-1])


def _check_image(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"A picture must be (H, W, 3) uint8, got {image.shape} {image.dtype}.")


def _rescaled(image: Image) -> Image:
    """Bring the longest side into the range in which contours are crisp and the panel stays handy."""
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = min(max(longest, _LONGEST[0]), _LONGEST[1]) / longest
    if scale == 1:
        return image.copy()
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _fitted(mask: BoolMask, size: tuple[int, int], base: Image, name: str) -> BoolMask:
    """Resize a mask of the image to its picture, with smooth edges and without losing the last pixel."""
    if mask.dtype != np.bool_ or mask.shape != size:
        raise ValueError(f"The {name} must be boolean of the image's size {size}, got {mask.shape} {mask.dtype}.")
    scale = max(base.shape[:2]) / max(size)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    soft = cv2.resize(mask.astype(np.float32), base.shape[1::-1], interpolation=method)
    if scale > 1:
        # Rounds the stairs of an enlarged mask; with this width a lone pixel still passes 0.5.
        soft = cv2.GaussianBlur(soft, (0, 0), 0.35 * scale)
    fitted = soft >= 0.5
    return fitted if fitted.any() or not mask.any() else soft > 0


def _mask_picture(base: Image, mask: BoolMask, colour: Colour, empty_stamp: str) -> Image:
    """Tint the mask, dim the rest and outline it; stamp the picture if the mask is empty."""
    if not mask.any():
        return _stamped(base, empty_stamp)
    picture = base.astype(np.float32)
    luminance = picture[mask].mean(axis=1, keepdims=True)  # its own colour would mix with the tint
    picture[mask] = 0.45 * luminance + 0.55 * np.array(colour, np.float32)
    picture[~mask] *= 0.7
    result = picture.round().astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, contours, -1, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.drawContours(result, contours, -1, colour, 2, cv2.LINE_AA)
    return result


def _greyed(base: Image, region: BoolMask) -> Image:
    """Cover a region with mid-grey through which the picture can still be made out."""
    picture = base.copy()
    picture[region] = (0.25 * base[region].mean(axis=1, keepdims=True) + 110).astype(np.uint8)
    return picture


def _stamped(base: Image, text: str) -> Image:
    """Bleach the picture and put a band with a text across it."""
    grey = cv2.cvtColor(cv2.cvtColor(base, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = np.asarray(0.45 * grey + 0.55 * 255, np.uint8)
    height, width = picture.shape[:2]
    letters = min(30, max(12, width // 8))
    band = min(2 * letters, height)
    top = (height - band) // 2
    picture[top : top + band] = _INK
    left = max((width - text_width(text, letters, BOLD)) // 2, 0)
    draw_text(picture, text, (left, top + (band - line_height(letters)) // 2), letters, (255, 255, 255), BOLD)
    return picture


def _overlap(prediction: BoolMask, truth: BoolMask | None, ignore: BoolMask | None) -> float | None:
    return None if truth is None else metrics.iou(*metrics.intersection_and_union(prediction, truth, ignore))


def _prediction_note(iou: float | None, score: float | None) -> str:
    notes = {"IoU": iou, "confidence": score}
    return "   ".join(f"{name} {value:.3f}" for name, value in notes.items() if value is not None)


def heat_picture(image: Image, values: npt.NDArray[np.floating]) -> Image:
    """A map over its image in grey, from its lowest value in dark to its highest in bright colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (h, w) finite numbers over the whole image.
    """
    low, high = float(values.min()), float(values.max())
    spread = (values - low) / (high - low) if high > low else np.zeros_like(values)
    level = np.clip(cv2.resize(spread, image.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    picture = 0.3 * grey + 0.7 * _colours(level).astype(np.float32)
    return np.asarray(picture.round(), np.uint8)


def _map_tile(base: Image, values: npt.NDArray[np.floating], title: str) -> _Tile:
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"{title} must be a matrix of finite numbers, got shape {values.shape}.")
    low, high = float(values.min()), float(values.max())
    return _Tile(
        title=title,
        picture=heat_picture(base, values),
        note="" if high > low else f"uniform, {low:.3g} everywhere",
        legend=(f"low {low:.3g}", f"high {high:.3g}") if high > low else None,
    )


def _colours(level: npt.NDArray[Any]) -> Image:
    """RGB of the colour map at levels 0 to 1."""
    bgr = cv2.applyColorMap(np.asarray(level * 255, np.uint8), _COLOUR_MAP)
    return np.asarray(bgr[..., ::-1], np.uint8)


def _column(tile: _Tile) -> Image:
    """One picture with its title above and its note or legend below."""
    height, width = tile.picture.shape[:2]
    column_width, title = max(width, _SHORTEST_COLUMN), line_height(_TITLE_SIZE) + 4
    column = np.full((title + height + line_height(_NOTE_SIZE) + 8, column_width, 3), 255, np.uint8)
    left = 0
    if tile.swatch is not None:
        cv2.rectangle(column, (0, 6), (12, 18), tile.swatch, -1)
        left = 20
    draw_text(column, tile.title, (left, 0), _TITLE_SIZE, _INK, BOLD)
    column[title : title + height, :width] = tile.picture
    cv2.rectangle(column, (0, title), (width - 1, title + height - 1), _RULE, 1)
    below = title + height + 6
    if tile.legend is not None:
        _draw_legend(column, tile.legend, below)
    draw_text(column, tile.note, (0, below), _NOTE_SIZE, _INK)
    return column


def _draw_legend(column: Image, ends: tuple[str, str], top: int) -> None:
    """Draw `low [colour bar] high` across the column."""
    before, after = (text_width(text, _NOTE_SIZE) + 8 for text in ends)
    bar = column.shape[1] - before - after
    draw_text(column, ends[0], (0, top), _NOTE_SIZE, _INK)
    draw_text(column, ends[1], (before + bar + 8, top), _NOTE_SIZE, _INK)
    column[top + 4 : top + 16, before : before + bar] = _colours(np.linspace(0, 1, max(bar, 1))[None])


def _assembled(tiles: Sequence[_Tile], query: str, caption: str) -> Image:
    """Query above, columns side by side, caption below."""
    columns = [_column(tile) for tile in tiles]
    width = sum(column.shape[1] for column in columns) + _GAP * (len(columns) - 1)
    spacer = np.full((columns[0].shape[0], _GAP, 3), 255, np.uint8)
    row = [part for column in columns for part in (spacer, column)][1:]
    question = wrap(query, _QUERY_SIZE, width, weight=BOLD)
    rows = [
        text_block(question, _QUERY_SIZE, width, _INK, BOLD),
        np.full((8, width, 3), 255, np.uint8),
        np.concatenate(row, axis=1),
        text_block(wrap(caption, _NOTE_SIZE, width), _NOTE_SIZE, width, _GREY),
    ]
    edge = (_MARGIN, _MARGIN)
    return np.pad(np.concatenate(rows), (edge, edge, (0, 0)), constant_values=255)
