import dataclasses

import pytest
import torch

from anchorseg.training.build import build_for_training
from anchorseg.training.merging import max_difference, merged_copy
from anchorseg.training.settings import TrainSettings
from anchorseg.training.trainable import trainable_groups
from scripts.parameters import meta_model, table
from tests.conftest import make_batch, make_sample

BACKBONES = ("llava-1.5", "qwen3-vl", "qwen2.5-vl")


def tables(model):
    """Names of the vocabulary tables; Qwen3-VL's small sizes have one, which the head reads too."""
    return tuple(f"{model.language.saved_as}.{name}" for name in model.language.vocabulary_tables)


def build(**options):
    return build_for_training(TrainSettings(size="tiny", lora_dropout=0.0, **options))


def loss_of(model, registry):
    batch = make_batch(model, registry, [make_sample(0), make_sample(1, (80, 60))]).to("cpu", model.dtype)
    output = model(batch)
    return output.logits.float().logsumexp(-1).mean() + output.segmentation.masks[0].mean()


def train_a_step(model, registry):
    loss_of(model.train(), registry).backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2).step()
    return model.eval()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("lora_r", "name"), [(0, "llava-1.5"), (4, "llava-1.5"), (4, "qwen3-vl")])
def test_rows_apart_change_nothing_before_the_first_step(precision, lora_r, name):
    whole, registry = build(precision=precision, lora_r=lora_r, language_model=name)
    rows, _ = build(precision=precision, lora_r=lora_r, language_model=name, train_embeddings="new")
    # Of a table that the head reads too the new rows' logits are a product of their own.
    bound = 1e-6 if len(whole.language.vocabulary_tables) == 1 else 0
    assert max(max_difference(whole.eval(), rows.eval(), registry)) <= bound


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 5e-2)])
@pytest.mark.parametrize("name", BACKBONES)
def test_only_the_rows_of_new_tokens_train_and_merging_writes_them_to_the_tables(precision, tolerance, name):
    model, registry = build(precision=precision, language_model=name, train_embeddings="new")
    before = {name: model.get_submodule(name).base_layer.weight.clone() for name in tables(model)}
    train_a_step(model, registry)
    added = list(registry.new_ids)
    kept = [row for row in range(len(registry)) if row not in added]
    merged = merged_copy(model)
    for name, old in before.items():
        assert model.get_submodule(name).base_layer.weight.grad is None
        new = merged.get_submodule(name).weight
        assert torch.equal(new[kept], old[kept])
        changed = (new[added] != old[added]).any(dim=1)
        assert changed.all() if "lm_head" in name else changed.any()
    assert not any("base_layer" in name or "trainable_tokens" in name for name in merged.state_dict())
    assert max_difference(model, merged, registry)[1] < tolerance


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_have_the_gradient_of_the_whole_tables(name):
    whole, registry = build(language_model=name, precision="fp32")
    rows, _ = build(language_model=name, precision="fp32", train_embeddings="new")
    for model in (whole, rows):
        loss_of(model.train(), registry).backward()
    added = list(registry.new_ids)
    for name in tables(whole):
        expected = whole.get_submodule(name).weight.grad[added]
        (found,) = (p.grad for p in rows.get_submodule(name).trainable_tokens_delta.parameters())
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_checkpointing_gives_the_same_gradients():
    gradients = []
    for choice in ("off", "on"):
        model, registry = build(train_embeddings="new", gradient_checkpointing=choice)
        loss_of(model.train(), registry).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6)


def test_7b_with_new_rows_only_trains_44_million():
    settings = TrainSettings(size="7b", train_embeddings="new")
    counts = {name: sum(p.numel() for p in group) for name, group in trainable_groups(meta_model(settings)).items()}
    assert counts["embeddings and head"] == 2 * 11 * 4096
    assert sum(counts.values()) == 306_156_336 - 2 * 32_000 * 4096
    assert "44,012,336" in table(settings)


def test_rows_apart_and_a_model_from_scratch_are_refused():
    with pytest.raises(ValueError, match="--train_embeddings new keeps the vocabulary tables, but --train_scope all"):
        dataclasses.replace(TrainSettings(size="tiny", train_embeddings="new"), train_scope="all")
