"""The joined model: prefix sharing is exact, gradients reach what trains, switches change what they should."""

import dataclasses

import pytest
import torch

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel, visibility
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, Method
from anchorseg.training.trainable import set_trainable, trainable_groups
from dataset.sample import Conversation, Turn
from model.lora import LoraSettings, add_lora, merge_lora
from tests.conftest import make_batch, make_model, make_sample
from utils.errors import CheckpointError

SAMPLES = [make_sample(0), make_sample(1, (80, 60)), make_sample(2, (64, 64), conversations=1)]
LISA = Method(
    num_latents=0,
    contextual_queries=False,
    spatial_prior=False,
    inject_prior=False,
    token_to_mask=False,
    mask_to_token=False,
)


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


def losses_of(model, registry, *, share_prefix=True, samples=SAMPLES):
    batch = make_batch(model, registry, samples, share_prefix=share_prefix)
    objective = Objective(LossWeights(), model.head)
    return objective(model(batch), batch)


def test_visibility_by_hand():
    segments = torch.tensor([[0, 0, 1, 1, 2, -1]])
    valid = torch.tensor([[True, False, True, True, True, False]])
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0],
            [1, 0, 1, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    assert torch.equal(visibility(segments, valid, zero_padding=True)[0].int(), expected.int())
    plain = visibility(segments, valid, zero_padding=False)[0]
    assert plain[1].tolist() == [True, False, False, False, False, False]


@pytest.mark.parametrize("padding", ["zero", "plain"])
def test_shared_prefix_equals_one_row_per_conversation(padding):
    model, registry = make_model(Method(padding_attention=padding))
    model.eval()
    grads, outputs = [], []
    for share in (True, False):
        model.zero_grad()
        batch = make_batch(model, registry, SAMPLES, share_prefix=share)
        assert len(batch.conversations.input_ids) == (3 if share else 7)
        losses = losses_of(model, registry, share_prefix=share)
        losses.total.backward()
        outputs.append((model(batch), losses))
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    (shared, shared_losses), (alone, alone_losses) = outputs
    assert relative(shared.logits, alone.logits) < 1e-5
    assert relative(shared.segmentation.low_resolution, alone.segmentation.low_resolution) < 1e-5
    assert relative(shared.segmentation.prior.similarity, alone.segmentation.prior.similarity) < 1e-5
    assert relative(shared_losses.total, alone_losses.total) < 1e-5
    assert grads[0].keys() == grads[1].keys()
    largest = max(float(grad.abs().max()) for grad in grads[1].values())
    for name, grad in grads[1].items():
        assert float((grads[0][name] - grad).abs().max()) < 1e-5 * largest, name


def test_gradient_reaches_exactly_what_trains():
    model, registry = make_model()
    add_lora(model.llava.language_model, LoraSettings(r=4))
    set_trainable(model, "paper")
    model.train()
    losses_of(model, registry).total.backward()
    groups = {id(p) for parameters in trainable_groups(model).values() for p in parameters}
    assert {id(p) for p in model.parameters() if p.requires_grad} == groups
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    unused = {name for name in trained if "point_embed" in name or "no_mask_embed" in name or "iou_prediction" in name}
    assert reached == trained - unused
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_text_only_batch_has_the_same_graph():
    model, registry = make_model()
    model.train()
    losses_of(model, registry).total.backward()
    expected = {name for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    text = dataclasses.replace(SAMPLES[0], conversations=(Conversation((Turn("What is it?", ("A red ball.",)),)),))
    losses = losses_of(model, registry, samples=[text])
    losses.total.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == expected
    decoder = [p.grad for name, p in model.named_parameters() if name.startswith("sam.") and p.grad is not None]
    assert all(float(grad.abs().max()) == 0 for grad in decoder)
    assert float(losses.total) == pytest.approx(float(losses.terms["ce"]))


@pytest.mark.parametrize(
    ("switches", "absent"),
    [
        ({}, set()),
        ({"num_latents": 3}, set()),
        ({"num_latents": 15}, set()),
        ({"num_latents": 31}, set()),
        ({"contextual_queries": False}, set()),
        ({"inject_prior": False}, set()),
        ({"token_to_mask": False}, {"t2m_bce", "t2m_dice"}),
        ({"mask_to_token": False}, {"m2t_bce", "m2t_dice"}),
        (dataclasses.asdict(LISA), {"t2m_bce", "t2m_dice", "m2t_bce", "m2t_dice"}),
    ],
)
def test_each_ablation_trains_and_changes_what_it_should(switches, absent):
    method = Method(**switches)
    model, registry = make_model(method)
    terms = {"ce", "mask_bce", "mask_dice", "t2m_bce", "t2m_dice", "m2t_bce", "m2t_dice"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(3):
        losses = losses_of(model, registry)
        assert losses.terms.keys() == terms - absent
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total))
    assert totals[2] < totals[0]
    output = model(make_batch(model, registry, SAMPLES))
    assert (output.segmentation.prior is None) == (not method.spatial_prior)
    queries = model.query_bank.positions.shape[0]
    assert queries == method.num_latents + 1
    uses_g = model.query_bank.contextual_projection is not None
    assert uses_g == (method.contextual_queries and method.num_latents > 0)
    downscaling = [p.grad for p in model.sam.prompt_encoder.mask_downscaling.parameters()]
    assert all((grad is not None) == method.inject_prior for grad in downscaling)


def test_impossible_switches_die_with_a_sentence():
    with pytest.raises(ValueError, match="spatial_prior is off, but inject_prior"):
        Method(spatial_prior=False)
    with pytest.raises(ValueError, match="num_latents is 300; it must be a whole number at least 0 and at most 255"):
        Method(num_latents=300)
    with pytest.raises(ValueError, match="did you mean num_latents"):
        AnchorSegConfig(method={"num_latent": 7})


def test_save_and_load(tmp_path):
    model, registry = make_model()
    model.eval()
    model.save_pretrained(tmp_path, max_shard_size="2MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = AnchorSegModel.from_pretrained(tmp_path)
    batch = make_batch(model, registry, SAMPLES)
    with torch.inference_mode():
        first, second = model(batch), again(batch)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.segmentation.low_resolution, second.segmentation.low_resolution)
    half = AnchorSegModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert next(half.parameters()).dtype == torch.bfloat16
    with torch.inference_mode():
        rounded = half(batch.to("cpu", torch.bfloat16))
    assert relative(rounded.logits.float(), first.logits) < 0.1


def test_incomplete_folder_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model, _ = make_model()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "query_bank.positions"
    save_file({key: value for key, value in tensors.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"1 tensor.s. missing: {name}"):
        AnchorSegModel.from_pretrained(tmp_path)
    save_file({**tensors, name: tensors[name][:3].clone()}, file, metadata={"format": "pt"})
    with pytest.raises((CheckpointError, RuntimeError), match=r"query_bank\.positions"):
        AnchorSegModel.from_pretrained(tmp_path)


def test_merged_lora_equals_unmerged_and_merging_twice_is_merging_once():
    model, registry = make_model()
    add_lora(model.llava.language_model, LoraSettings(r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.eval()
    batch = make_batch(model, registry, SAMPLES)
    with torch.inference_mode():
        before = model(batch)
        assert merge_lora(model) == 2 * model.config.language_config.text_config.num_hidden_layers
        after = model(batch)
        assert merge_lora(model) == 0
    assert relative(after.logits, before.logits) < 1e-5
    assert relative(after.segmentation.low_resolution, before.segmentation.low_resolution) < 1e-5
    assert not any("lora" in name for name in model.state_dict())
