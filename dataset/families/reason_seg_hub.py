"""ReasonSeg as the hub has it in parquet files, `Ricky06662/ReasonSeg_val` and `ReasonSeg_test`: a benchmark alone.

`ROOT/reason_seg/ReasonSeg_{val,test}/data/*.parquet`, a query, an image and its mask a row. These masks have no regions
that are left out of the score, which ReasonSeg's own annotations have, and no word on whether a query is a phrase or a
sentence, which its words decide here. Scores differ from ReasonSeg's for both reasons.
"""

from __future__ import annotations

from pathlib import Path

from dataset.readers.parquet import ParquetReader, list_rows, require_pyarrow
from dataset.sample import AnswerPart, Conversation, Protocol, Question, Sample, TargetSlot, Turn
from dataset.templates import evaluation
from dataset.templates.wording import prompt_of_query
from utils.errors import DataError

NAME = "ReasonSegHub"
SPLITS = ("val", "test")


class ReasonSegHub:
    """The benchmark: one sample for each row of a split.

    Args:
        root: the folder that holds `reason_seg/`.
        split: `val` or `test`.

    Raises:
        DataError: for another split, or a file that cannot be used.
        FileNotFoundError: if there is none.
        SettingsError: without pyarrow.
    """

    scoring = "reason"
    protocols: tuple[Protocol, ...] = ("forced", "generate")

    def __init__(self, root: str | Path, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"{NAME}|{split}", f"no such split; allowed: {', '.join(SPLITS)}")
        require_pyarrow(f"{NAME}|{split}")
        folder = Path(root) / "reason_seg" / f"ReasonSeg_{split}"
        files = sorted(folder.rglob("*.parquet"))
        if not files:
            raise FileNotFoundError(
                f"{folder} holds no .parquet; fetch the hub's data set Ricky06662/ReasonSeg_{split} into it"
            )
        self._rows, self._reader = list_rows(files), ParquetReader()

    def __len__(self) -> int:
        return len(self._rows)

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """A row, asked with the published prompt; `forced` puts the answer with the query bank into it.

        Raises:
            DataError: if image or mask cannot be read.
        """
        row = self._rows[index]
        image, mask = self._reader.read(row)
        before, after = evaluation.ANSWER
        answer: tuple[AnswerPart, ...] | None = (before, TargetSlot(0), after) if protocol == "forced" else None
        return Sample(
            record=row.record,
            image=image,
            conversations=(Conversation((Turn(prompt_of_query(row.text), answer),)),),
            masks=mask[None],
            questions=(Question(row.text),),
        )
