"""The service as an application of Ray Serve: replicas on many machines, as many as the load asks for.

    serve run minigpt5.service.ray_app:build model=storyworld-mini min_replicas=2 gpus_per_replica=0.5

Each replica has a model, an engine and the routes of `minigpt5.service.app`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from minigpt5.loading import ModelSettings, open_model
from minigpt5.service.app import ServiceSettings, create_app, log_as_json
from minigpt5.service.engine import Engine, Limits
from minigpt5.service.metrics import Metrics
from minigpt5.service.pictures import PictureLimits
from minigpt5.utils.memory import keep_freed_memory
from minigpt5.utils.settings import DTYPES, build_settings, setting
from minigpt5.weights import title_of

API_KEY = "MINIGPT5_API_KEY"


@dataclass(kw_only=True)
class ReplicaSettings(ModelSettings):
    """The replicas."""

    dtype: str = setting("float32", choices=DTYPES, help="of all weights")
    min_replicas: int = setting(1, least=1, help="replicas when nobody asks")
    max_replicas: int = setting(1, least=1, help="replicas when many ask")
    gpus_per_replica: float = setting(0.0, least=0, most=64, help="half a GPU leaves room for another replica")
    batch_size: int = setting(8, least=1, help="replies that a replica makes together; it is to have so many in hand")
    queue_size: int = setting(64, least=1, help="requests that may wait for a replica; more are told to come again")
    timeout: float = setting(300.0, above=0, help="seconds that a reply may take in its replica")
    max_new_tokens: int | None = setting(None, least=1, help="tokens of a reply")
    max_images: int = setting(4, least=0, help="pictures of a reply")
    cache_mb: int = setting(256, least=0, help="memory of a replica for what was read before")
    allow_urls: bool = setting(False, help="fetch pictures from public http and https addresses")
    log_prompts: bool = setting(False, help="write what is asked and answered to the log")

    def __post_init__(self):
        super().__post_init__()
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, less than min_replicas, {self.min_replicas}")


def build(args: Mapping[str, Any]) -> Any:
    """The application: `serve run` and Serve's configuration files call it with their arguments.

    A key that requests must show is what the environment variable MINIGPT5_API_KEY holds here.

    Args:
        args: of `ReplicaSettings`; numbers may be words.

    Returns:
        A `ray.serve.Application`.

    Raises:
        ValueError: naming an argument that is unknown or out of its range.
    """
    settings, key = build_settings(ReplicaSettings, dict(args)), os.environ.get(API_KEY) or None
    serve: Any = import_module("ray.serve")

    def replica() -> Any:
        return open_replica(settings, key)

    # A replica's engine holds a batch and the next one; what is more waits with Serve, for whichever is free first.
    deployment = serve.deployment(
        serve.ingress(replica)(),
        name="minigpt5",
        max_ongoing_requests=2 * settings.batch_size,
        max_queued_requests=settings.queue_size,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.batch_size,
        },
        graceful_shutdown_timeout_s=settings.timeout + 1,
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus_per_replica},
    )
    return deployment.bind()


def open_replica(settings: ReplicaSettings, api_key: str | None) -> Any:
    """One replica's routes, in front of an engine of its own."""
    keep_freed_memory()
    log_as_json()
    limits = Limits(
        batch_size=settings.batch_size,
        queue_size=2 * settings.batch_size,
        timeout=settings.timeout,
        max_new_tokens=settings.max_new_tokens,
        max_images=settings.max_images,
        cache_mb=settings.cache_mb,
    )
    told = ServiceSettings(
        model=title_of(settings.model),
        api_key=api_key,
        pictures=PictureLimits(allow_urls=settings.allow_urls),
        log_prompts=settings.log_prompts,
    )
    metrics = Metrics()
    pipe = open_model(settings.model, settings.adapter, getattr(torch, settings.dtype))
    return create_app(Engine(pipe, limits, metrics.measure), told, metrics)
