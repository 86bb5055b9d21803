"""The ways in which one configuration is trained and evaluated: transformers' Trainer, and ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import AutoModel, DataCollatorWithPadding, Trainer, TrainingArguments

from peftsearch.backbone.loading.load import Backbone, load_backbone, model_source
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.bench import Workbench
from peftsearch.training.frozen.caching_cost import SHARED_BY
from peftsearch.training.head import ClassificationHead
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory.allocator import keep_freed_memory
from peftsearch.training.model import TunedModel
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.optimiser import make_optimiser, warmup_steps

__all__ = ["ARMS", "Arm"]

Arm = Callable[[Workbench, Configuration, TrainingBudget, int], float]
"""Trains one configuration from the start and evaluates it on everything; returns the accuracy."""


def ours(optimisations: Optimisations) -> Arm:
    """peftsearch, with some of its savings."""

    def arm(
        bench: Workbench, configuration: Configuration, budget: TrainingBudget, seed: int
    ) -> float:
        with TrainingRun(
            *(bench.backbone, bench.train, bench.objective, configuration, budget, seed),
            optimisations=optimisations,
            shared_by=SHARED_BY,
        ) as run:
            run.train_to(run.full_steps)
            evaluation = run.evaluate(bench.validation)
        return bench.task.metric.value(
            *evaluation.pair(bench.task.metric, bench.task.validation.targets)
        )

    return arm


def documented(
    bench: Workbench, configuration: Configuration, budget: TrainingBudget, seed: int
) -> float:
    """(a): as the documentation of Trainer and peft does it, a fresh model for every trial, its own
    dropout, batches padded to their longest.
    """
    own = bench.backbone
    backbone = load_backbone(own.name, str(own.device), own.dtype)
    return _trainer(bench, backbone, configuration, budget, seed, fast=False)


def tuned_trainer(
    bench: Workbench, configuration: Configuration, budget: TrainingBudget, seed: int
) -> float:
    """(b): one backbone for all trials and every switch of Trainer's that helps."""
    return _trainer(bench, bench.backbone, configuration, budget, seed, fast=True)


def keeping_memory(
    bench: Workbench, configuration: Configuration, budget: TrainingBudget, seed: int
) -> float:
    """(b) with the one of our optimisations that needs nothing of ours: glibc's malloc, tuned."""
    keep_freed_memory()
    return _trainer(bench, bench.backbone, configuration, budget, seed, fast=True)


class _Rows(Dataset[dict[str, Any]]):
    """Tokenised examples as lists, as `datasets` gives them."""

    def __init__(self, data: Encoded, by_length: bool) -> None:
        lengths = data.inputs.lengths
        order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(data))
        self.order = order
        self.rows = [
            {
                "input_ids": data.inputs.row(int(i)).tolist(),
                "length": int(lengths[i]),
                "labels": int(data.labels[i]),
            }
            for i in order
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class _Classifier(nn.Module):
    """The module that Trainer trains: a body, a head, and tuned tensors that belong to neither."""

    def __init__(
        self, body: Any, read: Callable[..., Tensor], head: nn.Module, tuned: list[nn.Parameter]
    ) -> None:
        super().__init__()
        self.body, self.head, self.read = body, head, read
        self.tuned = nn.ParameterList(tuned)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Any]:
        logits = self.read(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def _trainer(
    bench: Workbench,
    backbone: Backbone,
    configuration: Configuration,
    budget: TrainingBudget,
    seed: int,
    fast: bool,
) -> float:
    configuration = configuration.within(backbone.shapes)
    training = configuration.training
    # What peft has no word for is attached by our own hooks: as fast as it can be under Trainer.
    tuned = TunedModel(
        *(backbone, configuration, bench.task.outputs, seed),
        optimisations=Optimisations.only("short_backward", *(["fused_sum"] if fast else [])),
    )
    with tuned:
        if _is_lora(configuration):
            model, optimiser = _with_peft(bench, configuration, seed, fast)
        else:
            model = _Classifier(
                backbone.model, tuned, tuned.head, [t.parameter for t in tuned.attachment.tuned]
            )
            optimiser = make_optimiser(tuned)
        steps = budget.full_steps(-(-len(bench.train) // training.batch_size))
        warmup = warmup_steps(tuned, steps)
        schedule = LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / (warmup + 1)))
        return _run(bench, model, (optimiser, schedule), training.batch_size, steps, seed, fast)


def _is_lora(configuration: Configuration) -> bool:
    (one, *others) = configuration.modifications or (None,)
    names = one is not None and str(one.place) == "attn.query+value" and one.form.name == "linear"
    return names and not others and configuration.training.up_lr_ratio == 1 and one.width == 8


_SHARED: dict[str, Any] = {}


def _with_peft(
    bench: Workbench, configuration: Configuration, seed: int, fast: bool
) -> tuple[nn.Module, Any]:
    """LoRA by peft; (b) keeps the frozen body in memory and takes the adapter off again."""
    body = _SHARED.pop("body", None) if fast else None
    if body is None:
        own = bench.backbone  # the frozen model is as precise as ours, and where ours is
        body = AutoModel.from_pretrained(
            model_source(own.name), add_pooling_layer=False, dtype=own.dtype
        ).to(own.device)
    torch.manual_seed(seed)
    (one,) = configuration.modifications
    s = getattr(one.composition, "s", 1.0)
    lora = peft.LoraConfig(
        r=8,
        lora_alpha=8 * s,
        target_modules=["query", "value"],
        layers_to_transform=None if one.place.layers is None else list(one.place.layers),
    )
    wrapped = peft.get_peft_model(body, lora)
    head = ClassificationHead(bench.backbone, configuration.head, bench.task.outputs, seed)

    def read(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = wrapped(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = head(states, attention_mask)
        return logits

    training = configuration.training
    groups = [
        {
            "params": [p for p in wrapped.parameters() if p.requires_grad],
            "lr": training.lr_of("linear"),
        },
        {"params": list(head.parameters()), "lr": training.head_lr},
    ]
    optimiser = torch.optim.AdamW(groups, fused=True, weight_decay=training.weight_decay)
    if fast:
        _SHARED["wrapped"] = wrapped
    return _Classifier(wrapped, read, head, []), optimiser


def _run(
    bench: Workbench,
    model: nn.Module,
    optimisers: tuple[Any, Any],
    batch_size: int,
    steps: int,
    seed: int,
    fast: bool,
) -> float:
    if fast:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    on_cpu = bench.backbone.device.type == "cpu"
    quick: dict[str, Any] = {
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "per_device_eval_batch_size": 64,
        "logging_strategy": "no",
        "dataloader_pin_memory": not on_cpu,
        "skip_memory_metrics": True,
    }
    arguments = TrainingArguments(
        output_dir="/nonexistent",
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        seed=seed,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=on_cpu,
        remove_unused_columns=True,
        label_names=["labels"],
        max_grad_norm=1.0,
        **(quick if fast else {}),
    )
    held_out = _Rows(bench.validation, by_length=fast)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Rows(bench.train, by_length=False),
        eval_dataset=held_out,
        data_collator=_Collator(bench.backbone.tokenizer),
        optimizers=optimisers,
    )
    trainer.train()
    found = trainer.predict(held_out)  # type: ignore[arg-type]
    if "wrapped" in _SHARED:
        _SHARED["body"] = _SHARED.pop("wrapped").unload()
    predicted = np.asarray(found.predictions).argmax(-1)
    return float((predicted == np.asarray(found.label_ids)).mean())


class _Collator:
    """Pads to the longest of a batch."""

    def __init__(self, tokenizer: Any) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        return self.pad([{k: v for k, v in row.items() if k != "length"} for row in rows])


ARMS: dict[str, Arm] = {
    "(a) Trainer + peft, as documented": documented,
    "(b) Trainer + peft, every switch": tuned_trainer,
    "(b+) as (b), and freed memory kept": keeping_memory,
    "(c) ours, no optimisation": ours(Optimisations.none()),
    **{f"(c) ours, {name} alone": ours(Optimisations.only(name)) for name in Optimisations.names()},
    "(d) ours, all": ours(Optimisations()),
}
