"""Uses a gateway through LiteLLM's providers for Ollama: ollama_litellm.py URL API_KEY CHAT EMBEDDING

The last two arguments are names of models. A failed check ends the program with an AssertionError or the SDK's exception.
"""

import os
import sys

# Uses the list of prices in the package, so that LiteLLM downloads none.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

QUESTION = [{"role": "user", "content": "Tell me something."}]


def check_chat(provider, model, bound):
    answer = bound(litellm.completion)(model=f"{provider}/{model}", messages=QUESTION, max_tokens=6, temperature=0)
    assert answer.choices[0].message.content, answer
    assert 0 < answer.usage.completion_tokens <= 6 and answer.usage.prompt_tokens > 0, answer
    stream = bound(litellm.completion)(
        model=f"{provider}/{model}", messages=QUESTION, max_tokens=6, temperature=0, stream=True
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text and len(chunks) > 2, chunks
    assert chunks[-1].choices[0].finish_reason in ("stop", "length"), chunks[-1]


def main():
    url, key, chat, embedding = sys.argv[1:]

    def bound(function):
        # A retry would hide a failure.
        return lambda **options: function(api_base=url, api_key=key, num_retries=0, timeout=60, **options)

    check_chat("ollama_chat", chat, bound)
    check_chat("ollama", chat, bound)
    answer = bound(litellm.embedding)(model=f"ollama/{embedding}", input=["a bird", "rain"])
    assert len(answer.data) == 2 and answer.data[0]["embedding"] != answer.data[1]["embedding"], answer
    try:
        bound(litellm.completion)(model="ollama_chat/no-such-model", messages=QUESTION)
    except litellm.exceptions.APIError as error:
        assert "no-such-model" in str(error), error
    except litellm.NotFoundError as error:
        assert "no-such-model" in str(error), error
    else:
        raise AssertionError("a model that is not there was found")


main()
