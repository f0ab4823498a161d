"""User errors: one sentence and status 2, also from a data-loading worker."""

import pickle
from pathlib import Path

import pytest
from torch._utils import ExceptionWrapper

from utils.errors import CheckpointError, DataError, SettingsError, UserError, exit_on_error


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("bad flag"),
        CheckpointError("bad flag"),
        UserError("bad flag"),
        FileNotFoundError("bad flag"),
    ],
)
def test_entry_point_exits_with_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    @exit_on_error()
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: bad flag\n"


def test_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_error():
        Path("no/such/file").read_text()
    assert capsys.readouterr().err == "error: The file no/such/file does not exist.\n"


def test_defects_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="defect"), exit_on_error():
        raise ValueError("defect")


def test_user_errors_are_value_errors() -> None:
    assert all(issubclass(kind, ValueError) for kind in (SettingsError, DataError, CheckpointError))


def test_data_error_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(DataError("a.jpg", "empty")))
    assert (copy.path, copy.reason, str(copy)) == ("a.jpg", "empty", "a.jpg: empty")


def test_data_error_survives_a_worker() -> None:
    try:
        raise DataError("images/a b.jpg", "cannot be decoded: the file is empty")
    except DataError:
        # What the worker sends; a real one costs five seconds to shut down after an error.
        parcel = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DataError) as error_info:
        parcel.reraise()
    assert error_info.value.path == "images/a b.jpg"
    assert error_info.value.reason == "cannot be decoded: the file is empty"
