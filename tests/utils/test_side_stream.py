import pytest
import torch

from utils.side_stream import OnSideStream, transfer


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


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_a_transfer_converts_values_and_leaves_ids(device):
    values, ids = torch.rand(512, 512), torch.arange(512)
    if device == "cuda":
        torch.cuda._sleep(200_000_000)
        values, ids = values.pin_memory(), ids.pin_memory()
    there = [transfer(tensor, torch.device(device), torch.bfloat16) for tensor in (values, ids)]
    assert [tensor.dtype for tensor in there] == [torch.bfloat16, torch.int64]
    assert all(tensor.device.type == device for tensor in there)
    assert torch.equal(there[0].cpu(), values.bfloat16()) and torch.equal(there[1].cpu(), ids)
