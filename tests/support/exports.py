"""What an export of a tiny model says of itself."""

from __future__ import annotations

from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.export.package import Package


def package(backbone: Backbone, configuration: Configuration, max_length: int = 64) -> Package:
    return Package(
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        model=backbone.name,
        model_fingerprint=backbone.fingerprint,
        labels=("negative", "positive"),
        max_length=max_length,
        task="sentiment",
        metric="accuracy",
        tuned_parameters=configuration.tuned_parameters(backbone.shapes),
        tuned_pct=configuration.tuned_pct(backbone.shapes),
    )
