import pytest
import torch

from utils.side_stream import OnSideStream


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_the_result_is_that_of_the_call_and_waits_for_it(device):
    def late(tensor):
        if device == "cuda":  # what is not waited for is then read too early
            torch.cuda._sleep(200_000_000)
        return tensor

    left, right = torch.rand(2, 64, 64, device=device)
    expected = left.clone() @ right
    given = torch.zeros_like(left)
    late(given).copy_(left)
    made = OnSideStream(lambda: late(given) @ right, left.device)
    torch.testing.assert_close(made.result().clone(), expected)


def test_an_error_of_the_call_is_raised_where_it_is_begun():
    with pytest.raises(ZeroDivisionError):
        OnSideStream(lambda: torch.ones(1) * (1 // 0), torch.device("cpu"))
