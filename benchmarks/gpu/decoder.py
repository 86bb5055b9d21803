"""A bf16 decoder of Llama-1B's shape: peft + Trainer, and 1, 2 and 4 configurations on one pass.

python decoder.py [SECONDS THAT IT MAY TAKE]
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from common import DEVICE, ON_GPU, SCRATCH, Facts, seconds_asked
from cuda_graphs import always_record
from decoder_model import BATCH, FOLDER, READ, WRITTEN, build, frozen_operations, workbench
from members import begin, together
from timing import call_ms, peak_gib, reset_peak, wait

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun

_STEPS, _WARM, _WARM_WITH_GRAPHS = (20, 6, 14) if ON_GPU else (2, 1, 5)

bench: Callable[[], Workbench] = cache(workbench)


def configuration() -> Configuration:
    """LoRA of rank 8 on queries and values of all layers."""
    training = Training(batch_size=BATCH, precision="bf16")
    own = METHODS["lora"].configuration(Head("none"), training)
    return Configuration(
        tuple(one.with_width(8) for one in own.modifications), own.head, own.training
    )


def timed(step: Callable[[], object], warm: int = _WARM, members: int = 1) -> dict[str, float]:
    """`rate` of a step of `members` configurations."""
    reset_peak()
    for _ in range(warm):
        step()
    wait()
    began = time.perf_counter()
    for _ in range(_STEPS):
        step()
    wait()
    return rate((time.perf_counter() - began) / _STEPS, members)


def rate(seconds: float, members: int = 1) -> dict[str, float]:
    """Milliseconds of a step of one configuration; of a step of `members` that takes so many
    seconds the tokens a second, and TFLOP/s of the frozen products alone.
    """
    return {
        "step_ms": round(seconds * 1000 / members, 2),
        "tokens_s": round(BATCH * (READ + WRITTEN) * members / seconds),
        "tflop_s": round(frozen_operations(members) / seconds / 1e12, 1),
        "peak_gib": round(peak_gib(), 2),
    }


def passes(count: int, graphs: bool = False) -> dict[str, Any]:
    """Configurations on one pass."""
    ones = [configuration() for _ in range(count)]
    with together(bench(), ones, range(count), graphs) as members:
        found = timed(members.step, _WARM_WITH_GRAPHS if graphs else _WARM, count)
        return found | {"replays": members.replays, "notes": members.notes}


@contextmanager
def one_run() -> Iterator[TrainingRun]:
    """One by itself, without states of frozen layers: all layers are tuned."""
    with begin(bench(), bench().backbone, configuration()) as run:
        yield run


def alone() -> dict[str, float]:
    with one_run() as run:
        return timed(lambda: run.train_to(run.step + 1))


def written() -> dict[str, float]:
    """Greedy writing of 16 texts with LoRA attached, as at the last rung of a search."""
    with one_run() as run:
        began = time.perf_counter()
        run.objective.write(run.model, bench().validation)
        wait()
        ms = (time.perf_counter() - began) * 1000
        return {"token_ms": round(ms / run.objective.max_tokens, 1)}


def trainer(masked: bool = True) -> dict[str, float]:
    """peft and Trainer as documented, on batches of the same shape. Without a mask of padding,
    which nothing here needs, attention may be causal: the faster kernels.
    """
    import peft
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    body = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.bfloat16).to(DEVICE)
    body.config.use_cache = False
    targets = ["q_proj", "v_proj"]
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    clock = _clock()
    arguments = TrainingArguments(
        output_dir=str(SCRATCH / "trainer"),
        per_device_train_batch_size=BATCH,
        max_steps=_WARM + _STEPS,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=not ON_GPU,
    )
    reset_peak()
    model = peft.get_peft_model(body, lora)
    Trainer(model, arguments, train_dataset=_rows(masked), callbacks=[clock]).train()
    return rate((clock.marks[-1] - clock.marks[_WARM - 1]) / _STEPS)


def _rows(masked: bool) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(97, 110, (BATCH * 64, READ + WRITTEN))
    labels = ids.clone()
    labels[:, :READ] = -100
    mask = {"attention_mask": torch.ones_like(ids[0])} if masked else {}
    return [{"input_ids": i, "labels": w, **mask} for i, w in zip(ids, labels, strict=True)]


def _clock() -> Any:
    """A callback of Trainer's with the times at which its steps ended, in `marks`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            wait()
            self.marks.append(time.perf_counter())

    return Clock()


def body() -> dict[str, float]:
    """The frozen body alone, forward and backward: the least that a step takes."""
    lm = bench().backbone.lm
    shape = (BATCH, READ + WRITTEN, lm.config.hidden_size)
    x = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    ones = torch.ones(shape[:2], device=DEVICE, dtype=torch.long)

    def there_and_back(mask: torch.Tensor | None) -> None:
        states = lm.model(inputs_embeds=x, attention_mask=mask, use_cache=False)
        states.last_hidden_state.sum().backward()

    return {
        "mask_ms": round(call_ms(partial(there_and_back, ones), 8), 2),
        "causal_ms": round(call_ms(partial(there_and_back, None), 8), 2),
    }


ARMS: dict[str, Callable[[], dict[str, Any]]] = {
    "built": build,
    "Trainer + peft": trainer,
    "alone": alone,
    "1 on a pass": partial(passes, 1),
    "4 on a pass": partial(passes, 4),
    "frozen body": body,
    "1 on a pass, graphs": partial(passes, 1, True),
    "written": written,
    "2 on a pass": partial(passes, 2),
    "Trainer + peft, no mask": partial(trainer, False),
}
"""In order of importance: time may run out."""


def freed(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement once the memory of the one before is free: Trainer keeps its models in
    reference cycles.
    """
    gc.collect()
    reset_peak()
    return measure()


def main(arguments: list[str]) -> None:
    always_record()
    facts = Facts("decoder", seconds_asked(arguments))
    for name, measure in ARMS.items():
        facts.add(name, partial(freed, measure))
    facts.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
