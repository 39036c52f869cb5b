"""A worker that uses RunPod's SDK. Its results have the form of those of RunPod's workers for language models."""

import asyncio
import ctypes
import os
import signal

import runpod

PR_SET_PDEATHSIG = 1


async def answer(job):
    asked = job["input"]
    if "prompt" in asked:
        await asyncio.sleep(3600)  # until the job is stopped
    elif "route" in asked:
        yield {"error": {"message": "no such route", "type": "invalid_request_error", "code": "route_not_found"}}
    elif asked["openai_input"].get("stream"):
        yield 'data: {"choices": []}\n\n'
        yield "data: [DONE]\n\n"
    else:
        yield {"choices": [{"message": {"role": "assistant", "content": "x"}}]}


def main():
    # The SDK's ping process must not outlive this one, even if this one is killed.
    os.register_at_fork(after_in_child=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if "FAIL" in os.environ:

        @runpod.serverless.register_fitness_check
        def llama_server():
            raise RuntimeError(os.environ["FAIL"])

    runpod.serverless.start(
        {"handler": answer, "return_aggregate_stream": True, "concurrency_modifier": lambda _: 3, "rp_args": {}}
    )


if __name__ == "__main__":
    main()
