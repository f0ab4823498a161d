"""Files of the kinds that are not handed out, computed by the naive route, in the formats of the fixtures' README."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from anchorseg.weights.official_names import official_name
from tests.parity import rules
from tests.parity.gres import rejected
from tests.parity.naive import IMAGE, loss_arrays, read, segment, to_file
from utils import geometry, metrics

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: <im_start><image><im_end>\n"
)
# With seed 4 no ReLU of the mask decoder has an input within 1e-5 of zero, where rounding would choose its gradient.
PICTURES = (rules.image(480, 640, 4), rules.image(333, 500, 2))


def encode(registry, question, answer):
    latents = " ".join(registry.strings.reasoning)
    text = f"{SYSTEM}{question} ASSISTANT: {answer}".replace("[SEG]", f"{latents} [SEG]")
    return [registry.bos_id, *registry.encode(text, IMAGE)]


def padded(rows, value):
    length = max(len(row) for row in rows)
    return np.array([row + [value] * (length - len(row)) for row in rows], dtype=np.int64)


def ellipses(picture, count):
    height, width = picture.shape[:2]
    shapes = [rules.ellipse(height, width, (0.3 + 0.2 * i, 0.4), (0.2, 0.3)) for i in range(count)]
    return np.stack(shapes) if shapes else np.zeros((0, height, width), dtype=np.uint8)


def given(pictures, rows, questions, offset, masks):
    """Inputs as a file holds them; `questions` are the lengths before the answers."""
    ids = padded(rows, 0)
    labels = [[-100] * start + row[start:] for row, start in zip(rows, questions, strict=True)]
    sizes = [picture.shape[:2] for picture in pictures]
    views = [geometry.longest_side_size(size, 1024) for size in sizes]
    arrays = {
        "in.input_ids": ids,
        "in.labels": padded(labels, -100),
        "in.attention_masks": ids != 0,
        "in.offset": np.array(offset),
        "in.sam_mask_shape_list": np.array([[view, size] for view, size in zip(views, sizes, strict=True)]),
        "in.clip_resize_list": np.array([geometry.longest_side_size(size, 336) for size in sizes]),
    }
    for image, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        arrays |= {f"in.raw_image.{image}": picture, f"in.masks_list.{image}": mask}
    return arrays


def middle(model, done):
    """Arrays of the language model's part."""
    predicts = torch.roll(done.ids == model.config.token_ids["segment"], -1, dims=1)
    return {
        "mid.image_features": done.features,
        "mid.vit_mask_for_llm": done.patches.float(),
        "mid.llm_attention_mask": done.keys,
        "mid.inputs_embeds": done.embeddings,
        "out.logits": done.logits,
        **{f"mid.hidden.{index}": layer for index, layer in enumerate(done.hidden)},
        "mid.seg_token_mask": predicts,
    }


def conversations(registry):
    """The evaluation file's two rows and the lengths of their questions."""
    pairs = [("What is the dog in this image?", "It is [SEG]. [SEG].</s>"), ("the object please", "[SEG].</s>")]
    rows = [encode(registry, *pair) for pair in pairs]
    return rows, [len(encode(registry, question, "")) for question, _ in pairs]


@torch.no_grad()
def write_evaluation(folder, context):
    """forward_eval.npz and forward_eval_eager.npz."""
    model = context.model
    rows, questions = conversations(context.registry)
    pictures, offset, masks = PICTURES[:1], [0, 2], [ellipses(PICTURES[0], 3)]
    inputs = given(pictures, rows, questions, offset, masks)
    for name, zero in (("forward_eval", True), ("forward_eval_eager", False)):
        done = read(model, pictures, inputs["in.input_ids"], offset, zero=zero)
        arrays = inputs | middle(model, done) | segment(model, pictures, done, offset)
        arrays |= {"out.output_ids": np.zeros(0, dtype=np.int64), "out.gt_masks.0": masks[0]}
        if not zero:
            arrays = {
                key: value
                for key, value in arrays.items()
                if key.startswith(("out.", "mid.seg_", "mid.latent_token_embeds"))
            }
        to_file(folder / f"{name}.npz", arrays)


@torch.no_grad()
def write_gres(folder, context):
    """forward_eval_gres.npz: three slots, one of them <REJ>."""
    model, ids = context.model, context.model.config.token_ids
    row = encode(context.registry, "the dog, the area and the object", "Sure, dog:[SEG], area:[REJ], object:[SEG].</s>")
    question = len(encode(context.registry, "the dog, the area and the object", ""))
    masks = ellipses(PICTURES[0], 3) * np.array([1, 0, 1], dtype=np.uint8)[:, None, None]
    inputs = given(PICTURES[:1], [row], [question], [0, 1], [masks])
    first = read(model, PICTURES[:1], inputs["in.input_ids"], [0, 1], zero=True)
    after = np.where(inputs["in.input_ids"] == ids["reject"], ids["segment"], inputs["in.input_ids"])
    done = read(model, PICTURES[:1], after, [0, 1], zero=True)
    output = first.ids.clone()
    for place in range(1, output.shape[1]):
        if output[0, place] in (ids["segment"], ids["reject"]):
            choice = int(first.logits[0, place - 1].argmax())
            is_segment = int(output[0, place]) == ids["segment"]
            refused = choice != ids["segment"] if is_segment else choice == ids["reject"]
            output[0, place] = ids["reject"] if refused else ids["segment"]
    arrays = inputs | middle(model, done) | segment(model, PICTURES[:1], done, [0, 1])
    arrays |= {"out.output_ids": output.masked_fill(first.ids == IMAGE, 0), "out.gt_masks.0": masks}
    arrays |= {"out.logits_first_pass": first.logits, "in.input_ids_after": after}
    to_file(folder / "forward_eval_gres.npz", arrays)
    assert rejected(first.ids, first.logits, ids["segment"], ids["reject"]).any()


@torch.no_grad()
def write_generation(folder, context):
    """forward_generate.npz: the answer's ids as they would be read in one piece."""
    model = context.model
    whole = encode(context.registry, "Can you segment the area?", "[SEG].</s>")
    length = len(encode(context.registry, "Can you segment the area?", ""))
    done = read(model, PICTURES[:1], np.array([whole]), [0, 1], zero=True)
    found = segment(model, PICTURES[:1], done, [0, 1])
    arrays = {
        "in.prompt_ids": np.array([whole[:length]]),
        "in.forced_answer_ids": np.array(whole[length:]),
        "out.sequences": np.array([whole]),
        "out.pred_mask_logits": found["out.pred_masks.0"],
        "out.pred_mask": (found["out.pred_masks.0"][0] > 0).numpy().astype(np.uint8),
        "out.similarity": found["out.similarity"],
    }
    to_file(folder / "forward_generate.npz", arrays)


def write_training(folder, context):
    """forward_train_multi.npz: two targets and a <REJ> on one image, a second image without targets."""
    model = context.training_model()
    pairs = [("the dog and more", "Sure, [SEG], [REJ], [SEG].</s>"), ("the area", "It is not in this image.</s>")]
    rows = [encode(context.registry, *pair) for pair in pairs]
    questions = [len(encode(context.registry, question, "")) for question, _ in pairs]
    masks = [ellipses(PICTURES[0], 3) * np.array([1, 0, 1], dtype=np.uint8)[:, None, None], ellipses(PICTURES[1], 0)]
    inputs, offset = given(PICTURES, rows, questions, [0, 1, 2], masks), [0, 1, 2]
    done = read(model, PICTURES, inputs["in.input_ids"], offset, zero=True)
    labels = torch.full_like(done.ids, -100)
    for row, given_labels in enumerate(inputs["in.labels"]):
        labels[row, done.ids[row] != IMAGE] = torch.tensor(given_labels[inputs["in.input_ids"][row] != IMAGE])
    cross_entropy = F.cross_entropy(done.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    found = segment(model, PICTURES, done, offset)
    loss = loss_arrays(found, [masks[0][[0, 2]], masks[1]], cross_entropy)
    loss["out.loss"].backward()
    arrays = inputs | middle(model, done) | found | loss | gradient_arrays(model) | {"mid.llm_labels": labels}
    to_file(folder / "forward_train_multi.npz", arrays)


def gradient_arrays(model):
    given = {official_name(name): value.grad for name, value in model.named_parameters() if value.requires_grad}
    found = {name: value.double() for name, value in given.items() if value is not None}
    probes = {n: torch.from_numpy(rules.tensor(f"probe.{n}", (v.numel(),))).double() for n, v in found.items()}
    return {
        "grad_names": list(found),
        "grad_norm": np.array([float(value.norm()) for value in found.values()]),
        "grad_probe_dot": np.array([float(value.flatten() @ probes[name]) for name, value in found.items()]),
        "grad_is_none": [*(name for name, value in given.items() if value is None), "ppm._layer_gate_W_similarity"],
        "grad_total_norm": torch.stack([value.norm() for value in found.values()]).norm(),
        **{f"grad.{name}": value.float() for name, value in found.items() if value.numel() <= 20_000},
    }


def write_similarities(folder):
    """similarity_chain.npz, by the naive resizes of torch."""
    generator = torch.Generator().manual_seed(1)
    arrays = {"const.map256_isnan": np.array(True)}
    for which, size in enumerate([(480, 640), (37, 1200)]):
        scores = torch.randn(2, 576, generator=generator).requires_grad_()
        low = scores.amin(dim=1, keepdim=True)
        responses = (scores - low) / (scores.amax(dim=1, keepdim=True) - low)
        options = {"mode": "bilinear", "align_corners": False}
        clip, small = geometry.longest_side_size(size, 336), geometry.longest_side_size(size, 256)
        view = F.interpolate(responses.view(2, 1, 24, 24), (336, 336), **options)[..., : clip[0], : clip[1]]
        maps = F.interpolate(view, size, **options)
        prompt = F.interpolate(maps, small, antialias=True, **options)
        prompt = F.pad(prompt, (0, 256 - small[1], 0, 256 - small[0]))
        weight = torch.randn(prompt.shape, generator=generator)
        ((prompt * weight).sum() + 1e-3 * maps.square().sum() + responses.square().sum()).backward()
        masks = torch.from_numpy(ellipses(np.zeros((*size, 3)), 2))
        content = F.interpolate(masks[:, None].float(), clip, antialias=True, **options)
        content = F.pad(content, (0, 336 - clip[1], 0, 336 - clip[0]))
        arrays |= {
            f"sim.{which}.in": scores,
            f"sim.{which}.shape": np.array(size),
            f"sim.{which}.map256": prompt,
            f"sim.{which}.minmax": responses,
            f"sim.{which}.map256_weight_for_grad": weight,
            f"sim.{which}.grad": scores.grad,
            f"sim.{which}.spatial_masking_64": prompt[..., ::4, ::4],
            f"sim.{which}.token_to_mask": maps[:, 0],
            f"gt.{which}.mask": masks,
            f"gt.{which}.apply336": content,
            f"gt.{which}.nearest24": content[:, 0, ::14, ::14],
            f"gt.{which}.target24": heat(content[:, 0, ::14, ::14]),
        }
    to_file(folder / "similarity_chain.npz", arrays)


def heat(coarse):
    """The 23 x 23 Gaussian of deviation 7 as one two-dimensional convolution."""
    line = torch.exp(-((torch.arange(23) - 11.0) ** 2) / 98)
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2
    soft = F.conv2d(F.pad(coarse[:, None], (11, 11, 11, 11), mode="reflect"), kernel)[:, 0]
    return soft / soft.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def write_scores(folder, context):
    """metrics.npz, pixel by pixel."""
    generator = np.random.default_rng(3)
    segment_id, reject_id = (context.model.config.token_ids[name] for name in ("segment", "reject"))
    arrays, pairs = {}, {}
    for protocol in ("validate", "gres", "rec"):
        pairs[protocol] = []
        for image in range(3):
            logits = generator.integers(-2, 3, (2, 12, 15)).astype(np.float32)
            truth = np.zeros((2, 12, 15), dtype=np.uint8)
            truth[0, 2:9, 3 + image : 9] = 1
            truth[1, :4] = image > 0
            truth[0, :2] = 255 if protocol != "gres" else 2
            slots = [segment_id, segment_id if image == 1 else reject_id]
            arrays[f"{protocol}.{image}.pred_logits"], arrays[f"{protocol}.{image}.gt"] = logits, truth
            arrays[f"{protocol}.{image}.output_ids"] = np.array([[1, 5, slots[0], 7, slots[1], 2]])
            pairs[protocol] += [(logits[i], truth[i], slots[i] == reject_id) for i in range(2)]
        arrays[f"{protocol}.n"] = np.array(3)
    to_file(folder / "metrics.npz", arrays | score_arrays(pairs))


def counts(logits, truth, closed):
    """[intersections, unions] of background and mask, by histogram as published."""
    predicted = (logits >= 0 if closed else logits > 0).astype(int)
    predicted[truth == 255] = 255
    areas = [[np.sum(x == value) for value in (0, 1)] for x in (predicted[predicted == truth], predicted, truth)]
    return np.array([areas[0], np.array(areas[1]) + areas[2] - areas[0]])


def score_arrays(pairs):
    validate = np.array([counts(logits, truth, False) for logits, truth, _ in pairs["validate"]])
    both, either = validate[:, :, 1].T
    out = {
        "validate.per_mask_inter_union": validate,
        "validate.giou": np.float32(np.mean(both / (either + 1e-5) + (either == 0))),
        "validate.ciou": np.float32(both.sum() / (either.sum() + 1e-10)),
    }
    gres = np.array([counts(logits, truth, True) for logits, truth, _ in pairs["gres"]])
    out["gres.per_mask_inter_union"] = gres
    for dataset in ("grefcoco", "refzom"):
        total, right, inter, union = 0.0, {True: [], False: []}, 0, 0
        for (_, truth, refused), ((_, i), (_, u)) in zip(pairs["gres"], gres, strict=True):
            empty = truth.sum() == 0
            right[empty].append(refused == empty)
            if empty:
                total += refused
                union += 0 if refused or dataset == "refzom" else u
            else:
                total, inter, union = total + i / (u + 1e-8), inter + i, union + u
        values = [total / len(gres), inter / union, np.mean(right[True]), np.mean(right[False])]
        out[f"gres.{dataset}.giou_ciou_Nacc_Tacc"] = np.array(values)
    for name, obeys in (("as_run", False), ("with_output_ids", True)):
        ious = []
        for logits, truth, refused in pairs["rec"]:
            found = metrics.box_of((logits > 0) & (not (obeys and refused)))
            wanted = metrics.box_of((truth > 0) & (truth != 255))
            both_there = found is not None and wanted is not None
            ious.append(metrics.box_iou(found, wanted) if both_there else float(found is wanted))
        out[f"rec.acc_meaniou_{name}"] = np.array([np.mean(np.array(ious) > 0.5), np.mean(ious)])
    return out
