"""Language models of every family, from a saved folder: trained, evaluated, and heard out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from support.families import TINY, tiny_config
from support.tiny import copying_rows, write_csv

WRITERS = [name for name, tiny in TINY.items() if tiny.kind != "encoder"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_saved_language_model_learns_to_answer(
    name: str, tiny_bart: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bart)
    config = tiny_config(name)
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id
    config.eos_token_id = config.decoder_start_token_id = tokenizer.eos_token_id
    is_decoder = TINY[name].kind == "decoder"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto = AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM
        auto.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    data = write_csv(tmp_path / "a.csv", copying_rows(30))
    spec = TaskSpec(
        train=str(data), kind="seq2seq", metric="exact_match", generation=Generation(beams=2)
    )
    bench = Workbench.prepare(str(tmp_path), spec)
    configuration = METHODS["lora-all"].configuration(
        Head("none"), Training(batch_size=8, lr=(("linear", 5e-3),))
    )
    budget = TrainingBudget(max_steps=14, rungs=(1.0,))
    with TrainingRun(bench.backbone, bench.train, bench.objective, configuration, budget, 0) as run:
        before = run.evaluate(bench.train, predict=False).loss
        run.train_to(14)
        after = run.evaluate(bench.train, predict=False).loss
        written = run.evaluate(bench.validation).predicted
    assert after < before - 0.05
    assert written is not None
    assert len(written) == len(bench.validation)
