"""Shell completion: names of studies, spaces, methods, models, tasks and the like.

A shell waits for the answer, so nothing is imported here that takes longer than the command line
itself; names that live beside torch are written down again, and a test compares them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from pathlib import Path

import typer

__all__ = [
    *("KINDS", "LANDMARKS", "OPTIMISATIONS", "METRICS", "REFERENCES", "SAMPLERS", "TASKS"),
    *(
        "join_colons",
        "kinds",
        "landmarks",
        "optimisations",
        "metrics",
        "models",
        "samplers",
        "show_arguments",
        "spaces",
        "studies",
        "tasks",
    ),
]

KINDS = ("classification", "multilabel", "regression", "seq2seq", "causal")
OPTIMISATIONS = (
    *("buckets", "tokens", "short_backward", "activations", "rows", "features", "inference"),
    *("fused", "fused_sum", "causal", "logits", "graphs", "allocator"),
)
METRICS = (
    *("accuracy", "macro_f1", "f1", "matthews", "f1_micro", "f1_macro", "subset_accuracy"),
    *("bce", "pearson", "spearman", "mse", "rouge2", "rouge1", "rougeL", "bleu", "chrf"),
    *("exact_match", "loss", "perplexity"),
)
LANDMARKS = ("none", "lora", "all")
SAMPLERS = ("auto", "tpe", "nsga2", "random")
REFERENCES = (
    *("minilm-l6", "bert-base", "roberta-base", "xlm-roberta-base", "electra-small"),
    *("distilbert-base", "deberta-v3-base", "modernbert-base", "bart-large", "mbart-large"),
    *("opus-mt-en-de", "pegasus-large", "t5-base", "t5-v1_1-base", "gpt2", "pythia-160m"),
    *("opt-125m", "llama-3.2-1b", "mistral-7b", "qwen2-0.5b", "qwen3-0.6b", "gemma-2b"),
    *("gemma-2-2b", "phi-3-mini", "falcon-7b", "falcon-40b", "falcon-rw-1b"),
)
TASKS = (
    *("demo:tweets", "demo:bbc", "demo:headlines"),
    *(f"nyu-mll/glue:{name}" for name in "cola sst2 mrpc qqp stsb mnli qnli rte wnli".split()),
    *("EdinburghNLP/xsum", "abisee/cnn_dailymail:3.0.0", "wmt/wmt16:ro-en", "stanfordnlp/imdb"),
    *("fancyzhx/ag_news", "cornell-movie-review-data/rotten_tomatoes", "stanfordnlp/snli"),
    "google-research-datasets/go_emotions:simplified",
)
_COMPLETES = "_PEFTSEARCH_COMPLETE"
_HIDDEN = "_PEFTSEARCH_BEFORE_COLON"


def _of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def offered(incomplete: str) -> list[str]:
        return _offered(names(), incomplete)

    return offered


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    before = os.environ.get(_HIDDEN, "")
    return [_Rest(name.removeprefix(before)) for name in names if name.startswith(incomplete)]


class _Rest(str):
    """Suffix to complete after bash splits at `:`; overrides `startswith` because Typer filters
    again.
    """

    def startswith(self, *_: object) -> bool:
        return True


def _spaces() -> Iterable[str]:
    from peftsearch.space.file.shipped import shipped_spaces

    return shipped_spaces()


def studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the studies in the folder given by `--studies`, or in ./studies."""
    return _offered(_studies(ctx), incomplete)


def show_arguments(ctx: typer.Context, incomplete: str) -> list[str]:
    """Arguments of `show`: spaces, methods, and trials once a study's name is complete."""
    study, mark, _ = incomplete.partition("#")
    if mark:
        return _offered(_trials(_folder(ctx) / study), incomplete)
    from peftsearch.design.methods import METHODS

    return _offered([*_spaces(), *METHODS, *(f"{name}#" for name in _studies(ctx))], incomplete)


def _folder(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("studies") or "studies")


def _studies(ctx: typer.Context) -> list[str]:
    return sorted(path.parent.name for path in _folder(ctx).glob("*/study.json"))


def _trials(study: Path) -> Iterator[str]:
    for path in sorted(study.glob("trials/*/result.json")):
        if path.parent.name.isdigit():
            yield f"{study.name}#{int(path.parent.name)}"


spaces = _of(_spaces)
kinds = _of(lambda: KINDS)
optimisations = _of(lambda: OPTIMISATIONS)
metrics = _of(lambda: METRICS)
landmarks = _of(lambda: LANDMARKS)
samplers = _of(lambda: SAMPLERS)
models = _of(lambda: ("demo:minilm", *(f"config:{name}" for name in REFERENCES)))
tasks = _of(lambda: TASKS)


def join_colons(environment: MutableMapping[str, str]) -> None:
    """Rejoin words that bash splits at `:`. Of `demo:tw` it replaces only `tw`."""
    if environment.get(_COMPLETES) != "complete_bash":
        return
    words = environment.get("COMP_WORDS", "").split("\n")
    at = int(environment.get("COMP_CWORD", "0"))
    joined: list[str] = []
    glued = False
    for before, word in zip(("", *words), words[: at + 1], strict=False):
        glued = bool(joined) and ":" in (before, word)
        if glued:
            joined[-1] += word
        else:
            joined.append(word)
    if glued:
        environment[_HIDDEN] = joined[-1][: joined[-1].rindex(":") + 1]
    environment["COMP_WORDS"] = "\n".join(joined)
    environment["COMP_CWORD"] = str(len(joined) - 1)
