"""Uses a gateway through LiteLLM's SDK: litellm_client.py BASE_URL API_KEY CHAT EMBEDDING RERANK

BASE_URL ends in /v1; the last three arguments are names of models. A failed check ends the program with an
AssertionError or the SDK's exception.
"""

import os
import sys

# Uses the list of prices in the package, so that LiteLLM downloads none.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

QUESTION = [{"role": "user", "content": "Tell me something."}]
DOCUMENTS = ["the sparrow sings", "rain falls on the road"]


def check_chat(complete, model):
    answer = complete(model=model, messages=QUESTION, max_tokens=8, temperature=0)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, f"no content: {answer}"
    assert choice.finish_reason in ("stop", "length"), answer
    assert 0 < answer.usage.completion_tokens <= 8, answer


def check_stream(complete, model):
    chunks = list(complete(model=model, messages=QUESTION, max_tokens=8, temperature=0, stream=True))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert len(chunks) > 2, f"not streamed: {chunks}"
    assert "".join(choice.delta.content or "" for choice in choices), f"no text: {chunks}"
    assert choices[-1].finish_reason in ("stop", "length"), f"the stream has no end: {chunks}"


def check_embedding(embed, model):
    answer = embed(model=model, input=["hello there", "something else"])
    vectors = [item["embedding"] for item in answer.data]
    assert len(vectors) == 2 and vectors[0] and vectors[0] != vectors[1], answer
    assert all(isinstance(number, float) for vector in vectors for number in vector), answer


def check_rerank(rerank, model):
    answer = rerank(model=model, query="a small bird", documents=DOCUMENTS)
    assert sorted(result["index"] for result in answer.results) == [0, 1], answer
    assert all(isinstance(result["relevance_score"], float) for result in answer.results), answer


def check_unknown_model(complete):
    try:
        complete(model="openai/no-such-model", messages=QUESTION)
    except litellm.NotFoundError as error:
        assert "no-such-model" in str(error), error
    else:
        raise AssertionError("a model that is not there was found")


def router_of(base_url, key, chat, embedding):
    def deployment(name, model):
        return {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": base_url, "api_key": key}}

    deployments = [deployment("group", chat), deployment("group", chat), deployment("vectors", embedding)]
    return litellm.Router(model_list=deployments, num_retries=0)


def main():
    base_url, key, chat, embedding, rerank = sys.argv[1:]

    def bound(function):
        # A retry would hide a failure.
        return lambda **options: function(api_base=base_url, api_key=key, num_retries=0, timeout=60, **options)

    check_chat(bound(litellm.completion), f"openai/{chat}")
    check_stream(bound(litellm.completion), f"openai/{chat}")
    check_embedding(bound(litellm.embedding), f"openai/{embedding}")
    # Two of LiteLLM's providers for self-hosted rerankers.
    for provider in ("jina_ai", "hosted_vllm"):
        check_rerank(bound(litellm.rerank), f"{provider}/{rerank}")
    check_unknown_model(bound(litellm.completion))

    router = router_of(base_url, key, chat, embedding)
    for _ in range(3):
        check_chat(router.completion, "group")
        check_stream(router.completion, "group")
    check_embedding(router.embedding, "vectors")


if __name__ == "__main__":
    main()
