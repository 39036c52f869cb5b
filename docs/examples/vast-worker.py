"""A worker for Vast.ai serverless: tells Vast when llamagate is ready, and forwards signed requests to it.

See "Vast.ai serverless" in docs/DEPLOYMENT.md for how to start it. It needs `pip install vastai`, and llamagate on
127.0.0.1:8000 without keys (HOST=127.0.0.1, AUTH_ENABLED=false), because requests are signed by Vast and have no key.
"""

import os

from vastai import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig

MODEL = os.environ.get("MODEL_ID", "any")  # with a single model, any name means that model
QUEUE_SECONDS = 60.0  # a request that would wait longer gets 429, and Vast tries another worker


def tokens(request: dict) -> float:
    """Returns the load of a request: the most tokens that it may generate."""
    return float(request.get("max_completion_tokens") or request.get("max_tokens") or 512)


def question() -> dict:
    """Returns a request for the benchmark, which runs once the model is loaded."""
    content = "Explain in one paragraph how rainbows form."
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 128}


def handler(route: str, benchmark: BenchmarkConfig | None = None) -> HandlerConfig:
    return HandlerConfig(
        route=route, workload_calculator=tokens, allow_parallel_requests=True, max_queue_time=QUEUE_SECONDS,
        benchmark_config=benchmark,
    )


slots = int(os.environ.get("MAX_CONCURRENT_REQUESTS", "1"))
config = WorkerConfig(
    model_server_url="http://127.0.0.1",
    model_server_port=int(os.environ.get("PORT", "8000")),
    # Not /health: it answers 503 while llama-server restarts, although requests wait for the restart.
    model_healthcheck_url="/ping",
    model_log_file=os.environ.get("MODEL_LOG", "/workspace/llamagate.log"),
    log_action_config=LogActionConfig(
        on_load=["llamagate is ready"],
        on_error=["fatal: "],
    ),
    handlers=[
        handler("/v1/chat/completions", BenchmarkConfig(generator=question, runs=3, concurrency=slots)),
        handler("/v1/completions"),
        handler("/v1/embeddings"),
    ],
)

if __name__ == "__main__":
    Worker(config).run()
