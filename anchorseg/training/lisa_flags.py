"""LISA's flags that are called otherwise here, or that nothing needs any more; docs/from_lisa.md shows the table."""

from __future__ import annotations

TRAINING = {
    "auto_resume": "--resume",
    "start_epoch": "--resume, which knows the step",
    "conv_type": "nothing: the template is LLaVA-v1's",
    "image_size": "nothing: the preset has SAM's side, 1024",
    "out_dim": "nothing: the width of SAM's prompts, 256",
    "train_mask_decoder": "nothing: the mask decoder trains with --train_scope paper",
    "use_mm_start_end": "nothing: always on",
    "vision-tower": "--vision_tower",
    "val_batch_size": "nothing: validation asks one image at a time, so that ranks agree",
    "exclude_val": "nothing: RefCOCO's train split holds no image of val or test",
    "eval_only": "python eval_reasonseg.py",
    "eval_rec": 'python eval_reasonseg.py --val_dataset "refcoco|unc|val"',
    "weight": "--version MODEL_FOLDER (python -m scripts.convert_checkpoint makes one of a released checkpoint)",
    "vis_save_path": "python eval_reasonseg.py --vis_save_path",
    "load_in_8bit": "python eval_reasonseg.py --load_in 8bit; a quantized model does not train",
    "load_in_4bit": "python eval_reasonseg.py --load_in 4bit; a quantized model does not train",
    "pad_train_clip_images": "nothing: the CLIP view is padded",
    "pad_val_clip_images": "nothing: the CLIP view is padded",
    "use_expand_question_list": "nothing: the lists of wordings are fixed",
}
"""Flags of LISA's and its descendants' train_ds.py."""

MERGING = {
    "weight": "--run RUN_FOLDER; zero_to_fp32.py is not needed",
    "version": "nothing: the run knows its base model",
    **dict.fromkeys(
        ("vision_pretrained", "vision-tower", "lora_r", "lora_alpha", "lora_target_modules", "precision"),
        "nothing: the run knows it",
    ),
}
"""Flags of LISA's merge_lora_weights_and_save_hf_model.py."""

EVALUATION = {
    **{name: TRAINING[name] for name in ("image_size", "conv_type", "use_mm_start_end", "pad_val_clip_images")},
    "load_in_8bit": "--load_in 8bit",
    "load_in_4bit": "--load_in 4bit",
    "eval_only": "nothing: this program evaluates",
    "weight": "--version MODEL_FOLDER",
    "log_base_dir": "--output_dir",
    "exp_name": "--output_dir",
    "vision-tower": "nothing: the model folder holds it",
    "vision_tower": "nothing: the model folder holds it",
    "vision_pretrained": "nothing: the model folder holds it",
}
"""Flags by which LISA's train_ds.py evaluates."""
