import pytest
import torch

from utils.beside import Beside


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_the_result_is_that_of_the_call_and_waits_for_it(device):
    left, right = torch.rand(2, 512, 512, device=device)
    product, total = left @ right, left + right
    made = Beside(lambda: left @ right, left.device)
    between = left + right
    torch.testing.assert_close(made.result(), product)
    torch.testing.assert_close(between, total)


def test_an_error_of_the_call_is_raised_where_it_is_begun():
    with pytest.raises(ZeroDivisionError):
        Beside(lambda: torch.ones(1) * (1 // 0), torch.device("cpu"))
