"""Settings of a training run: LISA's flag names where they exist; the defaults are the paper's Table 10.

A run has `TrainSettings`, which are composed of parts; what needs one part takes that part.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from anchorseg.method.heads import HEADS, PIXELLM, check_masks, head_entry
from anchorseg.method.options import LisaOptions, LossWeights, Method, MethodOptions
from dataset.registry import FAMILIES
from model.backbone_names import LANGUAGE_BACKBONES, MASK_BACKBONES
from model.lora_settings import LoraSettings
from utils.settings import Settings, flags_of, setting

SMALL = ("tiny", "mini")
"""Sizes that a CPU trains."""

if TYPE_CHECKING:

    class HeadSettings(Method):
        """The options of all heads."""

    class FamilySettings(Settings):
        """For each family `--FAMILY_data`, which chooses its datasets."""

else:
    HeadSettings = flags_of("HeadSettings", *(head.Options for head in HEADS.values()))
    FamilySettings = make_dataclass(
        "FamilySettings",
        [
            (f"{name}_data", str, setting(family.chosen, help=family.about, group="data"))
            for name, family in FAMILIES.items()
            if family.sets
        ],
        bases=(Settings,),
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings(HeadSettings):
    """What is built, of which weights, and what of it trains."""

    GROUP: ClassVar[str] = "model"
    preset: str = setting("7b", help="recipe, a file of the folder configs", may_change=True)
    size: Literal["tiny", "mini", "2b", "4b", "7b", "8b", "13b"] = setting(
        "7b",
        help="size of the language backbone, and of the mask backbone that goes with it; tiny starts from nothing, "
        "mini has weights that come with the project",
    )
    language_model: str = setting("llava-1.5", help="language backbone", choices=tuple(LANGUAGE_BACKBONES))
    mask_model: str = setting("sam", help="mask backbone", choices=tuple(MASK_BACKBONES))
    head: str = setting("anchorseg", help="what turns hidden states into masks", choices=tuple(HEADS))
    version: str | None = setting(
        None,
        help="folder or hub name of the language backbone, LLaVA-1.5 (either layout) or Qwen-VL, or an AnchorSeg model "
        "folder",
        may_change=True,
    )
    vision_tower: str | None = setting(
        None,
        help="CLIP folder or hub name, for LLaVA's original layout; refused where LLaVA holds its CLIP",
        may_change=True,
    )
    vision_pretrained: str | None = setting(
        None,
        help="weights of the mask backbone: sam_vit_h_4b8939.pth; for SAM 2.1 a folder facebook/sam2.1-hiera-NAME, "
        "for SAM 3 facebook/sam3",
        may_change=True,
    )
    sam_model: Literal["preset", "vit_b", "vit_l", "vit_h"] = setting(
        "preset", help="size that --vision_pretrained must have; the presets 7b and 13b have vit_h", may_change=True
    )
    compile_sam: bool = setting(
        False, help="compile SAM's encoder with torch.compile at its first use", may_change=True
    )
    cuda_graphs: bool = setting(
        False, help="launch the encoders and the language model as CUDA graphs in training", may_change=True
    )
    device: Literal["auto", "cpu"] = setting(
        "auto", help="auto: the GPU, without which only size tiny starts; cpu: hide it", may_change=True
    )
    precision: Literal["bf16", "fp32"] = setting("bf16", help="dtype of weights and activations")
    model_max_length: int = setting(2048, help="longest sequence in tokens, image included", minimum=64)
    lora_r: int = setting(8, help="rank of LoRA; 0 for none", minimum=0)
    lora_alpha: int = setting(16, help="scale of LoRA, alpha / r", minimum=1)
    lora_dropout: float = setting(0.05, help="dropout before LoRA", minimum=0, below=1)
    lora_target_modules: str = setting("q_proj,v_proj", help="projections with LoRA, by comma")
    train_scope: Literal["paper", "all"] = setting(
        "paper", help="what trains: the paper's parts, or every weight (a model from scratch)"
    )
    train_embeddings: Literal["all", "new"] = setting(
        "all", help="rows of the embedding and the head that train: all, as published, or of the new tokens"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_embeddings == "new" and self.train_scope == "all":
            raise ValueError(
                "--train_embeddings new keeps the vocabulary tables, but --train_scope all trains every weight; "
                "use --train_scope paper, or --train_embeddings all"
            )
        check_masks(self.head, self.mask_model)
        self._check_language()
        self.method()
        self.lora()

    def _check_language(self) -> None:
        entry, named = LANGUAGE_BACKBONES[self.language_model], f"--language_model {self.language_model}"
        if self.size not in entry.sizes:
            raise ValueError(
                f"--size {self.size}: {named} has {', '.join(entry.sizes)}; take one of these, or the preset of "
                "another backbone"
            )
        method = self.method()
        if isinstance(method, LisaOptions) and method.clip_view == "crop" and not entry.crops:
            raise ValueError(f"--clip_view crop: {named} reads whole images; pass --clip_view padded")
        if self.cuda_graphs and not entry.recordable:
            raise ValueError(
                f"--cuda_graphs: the image encoder of {named} waits for the sizes of images, which a graph cannot; "
                "leave --cuda_graphs out"
            )

    def method(self) -> MethodOptions:
        """Options of the head's method."""
        kind = head_entry(self.head).Options
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind)})

    def lora(self) -> LoraSettings | None:
        """Adapters of the language model, or None for rank 0."""
        if self.lora_r == 0:
            return None
        targets = tuple(name.strip() for name in self.lora_target_modules.split(","))
        return LoraSettings(r=self.lora_r, alpha=self.lora_alpha, dropout=self.lora_dropout, targets=targets)


@dataclass(frozen=True, kw_only=True)
class DataSettings(FamilySettings):
    """Datasets, how they are mixed and how they are read."""

    GROUP: ClassVar[str] = "data"

    dataset_dir: str = setting("./data", help="folder that holds the datasets", may_change=True)
    index_dir: str | None = setting(
        None, help="folder for what is made of large annotation files once; none: in the user's cache", may_change=True
    )
    dataset: str = setting("reason_seg", help="training families, joined by ||")
    sample_rates: tuple[float, ...] = setting((1.0,), help="relative rate of each family", minimum=0)
    sampling: Literal["replacement", "epoch"] = setting(
        "replacement", help="replacement: any record, families by rate; epoch: every record once, then again"
    )
    custom_data: str | None = setting(
        None, help="folder of the family custom: images with LabelMe files, a COCO file or PNG masks"
    )
    explanatory: float = setting(
        0.1, help="chance of an answer of explanation alone; -1 for no explanations", minimum=-1, maximum=1
    )
    num_classes_per_sample: int = setting(3, help="most conversations of one image", minimum=1)
    num_classes_per_question: int = setting(
        3, help="most phrases of one conversation in sem_seg, refer_seg and custom", minimum=1
    )
    val_dataset: str = setting(
        "ReasonSeg|val", help="validation sets, joined by ||; the first selects", may_change=True
    )
    strict_data: bool = setting(
        False, help="stop at the first bad record; otherwise it is replaced, counted and reported", may_change=True
    )
    cache_features: str | None = setting(
        None,
        help="folder that keeps what SAM's frozen encoder gives for each image; none: encode again",
        may_change=True,
    )
    cache_gigabytes: float = setting(
        200.0, help="size of --cache_features, in 10^9 bytes, from which on nothing is added", above=0, may_change=True
    )
    workers: int = setting(
        4, help="data loading processes of each rank; 0 loads in the process", minimum=0, maximum=256, may_change=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        families = self.dataset.split("||")
        if len(families) != len(self.sample_rates):
            raise ValueError(
                f"--dataset names {len(families)} dataset(s) ({', '.join(families)}), but --sample_rates has "
                f"{len(self.sample_rates)} number(s); give one rate for each dataset"
            )
        if self.sampling == "epoch" and len({rate for rate in self.sample_rates if rate}) > 1:
            rates = ",".join(f"{rate:g}" for rate in self.sample_rates)
            raise ValueError(
                f"--sample_rates {rates}: with --sampling epoch every record comes once, so rates must be equal or 0; "
                "make them so, or use --sampling replacement"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings(Settings):
    """Steps, batches, losses, the optimizer, and where its state is."""

    GROUP: ClassVar[str] = "training"

    epochs: int = setting(120, help="epochs", minimum=1, may_change=True)
    steps_per_epoch: int = setting(10_000, help="optimizer steps of an epoch", minimum=1, may_change=True)
    batch_size: int = setting(2, help="images in a micro-batch of one rank", minimum=1)
    grad_accumulation_steps: int = setting(10, help="micro-batches of an optimizer step", minimum=1)
    lr: float = setting(3e-4, help="peak learning rate", above=0, may_change=True)
    warmup_steps: int = setting(100, help="steps of linear warm-up", minimum=0, may_change=True)
    beta1: float = setting(0.9, help="of AdamW", minimum=0, below=1)
    beta2: float = setting(0.95, help="of AdamW", minimum=0, below=1)
    weight_decay: float = setting(0.0, help="of AdamW", minimum=0)
    gradient_clipping: float = setting(1.0, help="largest gradient norm", above=0)
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = setting(
        "adamw", help="AdamW; the others keep its state in 8 bits and need bitsandbytes"
    )
    zero_stage: Literal[1, 2, 3] = setting(
        2, help="DeepSpeed ZeRO stage; 3 splits the weights too, and gathers them all to validate"
    )
    offload: Literal["none", "optimizer"] = setting(
        "none", help="what is kept and computed in main memory: nothing, or the optimizer (stage 1, 2 or 3)"
    )
    grad_accum_dtype: Literal["bf16", "fp32"] = setting(
        "bf16", help="with --precision bf16, dtype in which gradients of micro-batches and ranks are summed"
    )
    deterministic: bool = setting(
        False, help="the same bits at every run of the same GPUs; an operation that has no such kernel stops the run"
    )
    tf32: bool = setting(False, help="let float32 products and convolutions on a GPU round their factors to TF32")
    gradient_checkpointing: Literal["auto", "on", "off"] = setting(
        "auto", help="recompute the language model in backward; auto: where the GPU is small for it", may_change=True
    )
    ce_loss_weight: float = setting(1.0, help="weight of the text loss", minimum=0)
    bce_loss_weight: float = setting(2.0, help="weight of the BCE terms", minimum=0)
    dice_loss_weight: float = setting(4.0, help="weight of the Dice terms", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offload == "optimizer" and self.optimizer != "adamw":
            raise ValueError(
                f"--offload optimizer has an AdamW of its own and does not go with --optimizer {self.optimizer}; "
                "use one of the two"
            )
        if self.grad_accum_dtype == "fp32" and self.zero_stage == 1 and self.offload == "none":
            raise ValueError(
                "--grad_accum_dtype fp32 with --zero_stage 1 takes another optimizer of DeepSpeed's, with which "
                "resuming and merging were not tried; use --zero_stage 2"
            )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def loss_weights(self) -> LossWeights:
        """Weights of the objective's terms."""
        return LossWeights(ce=self.ce_loss_weight, bce=self.bce_loss_weight, dice=self.dice_loss_weight)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """The run's name and place, its seed, and when it validates, saves and logs."""

    GROUP: ClassVar[str] = "run"

    exp_name: str = setting("anchorseg", help="name of the run", may_change=True)
    log_base_dir: str = setting("./runs", help="folder of all runs", may_change=True)
    seed: int = setting(42, help="of weights, data order and dropout", minimum=0, maximum=2**63 - 1)
    resume: bool = setting(
        False, help="go on from the run's latest checkpoint, or begin if it has none", may_change=True
    )
    no_eval: bool = setting(False, help="no validation during training", may_change=True)
    eval_interval: int = setting(
        0, help="optimizer steps between validations and checkpoints; 0 for each epoch", minimum=0, may_change=True
    )
    select_by: Literal["giou", "ciou"] = setting("giou", help="metric that keeps the best checkpoint", may_change=True)
    save_minutes: float = setting(
        30.0,
        help="minutes between checkpoints; they are also written before every validation",
        above=0,
        may_change=True,
    )
    print_freq: int = setting(10, help="optimizer steps between logged lines", minimum=1, may_change=True)
    val_pictures: int = setting(
        4,
        help="samples of each validation set, always the same ones, that TensorBoard gets a picture of; 0 for none",
        minimum=0,
        may_change=True,
    )
    wandb: bool = setting(
        False, help="send metrics and pictures to Weights & Biases too (pip install wandb)", may_change=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exp_name.strip() or Path(self.exp_name).is_absolute() or ".." in Path(self.exp_name).parts:
            raise ValueError(
                f"--exp_name {self.exp_name!r} must be the name of a folder inside --log_base_dir, such as anchorseg-7b"
            )

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.log_base_dir) / self.exp_name


# Fields come from the last base to the first: head, families, model, data, training, run, as in every config.json.
@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings, OptimizationSettings, DataSettings, ModelSettings, FamilySettings, HeadSettings):
    """Everything that decides a run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache_features is not None and self.train_scope == "all":
            raise ValueError(
                f"--cache_features {self.cache_features} keeps what SAM's frozen encoder gives, but --train_scope all "
                "trains the encoder; use --train_scope paper, or leave --cache_features out"
            )
        if self.cuda_graphs:
            self._check_cuda_graphs()
        alone = {
            "--cache_features": self.cache_features is not None,  # each GPU would run the encoder when it likes
            "--compile_sam": self.compile_sam,
            "--cuda_graphs": self.cuda_graphs,
            f"--mask_model {self.mask_model}": self.mask_model in PIXELLM,
            f"--optimizer {self.optimizer}": self.optimizer != "adamw",
        }
        for option, given in alone.items():
            if given and self.zero_stage == 3:
                raise ValueError(f"{option} does not go with --zero_stage 3; leave it out, or use --zero_stage 2")

    def _check_cuda_graphs(self) -> None:
        if self.train_scope == "all":
            raise ValueError(
                "--cuda_graphs captures encoders that are frozen, but --train_scope all trains every weight; use "
                "--train_scope paper, or leave --cuda_graphs out"
            )
        if self.gradient_checkpointing == "on":
            raise ValueError(
                "--cuda_graphs keeps what backward needs where it is, and --gradient_checkpointing on computes it "
                "again; use --gradient_checkpointing off, or leave --cuda_graphs out"
            )

    @property
    def validation_interval(self) -> int:
        """Optimizer steps between validations."""
        return self.eval_interval or self.steps_per_epoch
