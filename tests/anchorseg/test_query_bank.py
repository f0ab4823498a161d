"""Where query banks lie in token ids."""

import pytest
import torch

from anchorseg.method.query_bank import locate_banks


def test_a_bank_out_of_order_is_refused() -> None:
    ids = torch.tensor([[1, 5, 11, 12, 10, 3], [1, 5, 12, 11, 10, 3]])
    assert locate_banks(ids[:1], (11, 12, 10)).columns.tolist() == [[2, 3, 4]]
    with pytest.raises(ValueError, match=r"row 1, position 4: <SEG> .id 10. follows ids \[12, 11\]"):
        locate_banks(ids, (11, 12, 10))
