"""Meets the end of a key's budget: budget_client.py BASE_URL API_KEY openai|litellm MODEL

BASE_URL ends in /v1. One request is left of the key's day. The SDK's own retries are on: none may be sent, because the
budget begins again at midnight. A failed check ends the program with an AssertionError or the SDK's exception.
"""

import os
import sys

# Uses the list of prices in the package, so that LiteLLM downloads none.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

QUESTION = [{"role": "user", "content": "Tell me something."}]
DAY = 24 * 60 * 60


def check_error(error):
    assert error.status_code == 429, error
    assert "requests_per_day" in str(error), error


def check_openai(base_url, key, model):
    import openai

    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=3, timeout=60)
    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=4)
    assert raw.parse().usage.completion_tokens <= 4, raw.text
    assert 0 < int(raw.headers["x-budget-remaining-tokens"]) < 10_000, raw.headers
    try:
        client.chat.completions.create(model=model, messages=QUESTION, max_tokens=4)
    except openai.RateLimitError as error:
        assert error.code == "budget_exceeded" and error.type == "rate_limit_error", error
        headers = error.response.headers
        assert headers["x-should-retry"] == "false" and 0 < int(headers["retry-after"]) <= DAY, headers
        check_error(error)
    else:
        raise AssertionError("the budget has no end")


def check_litellm(base_url, key, model):
    import litellm

    def ask():
        return litellm.completion(
            model=f"openai/{model}", api_base=base_url, api_key=key, messages=QUESTION, max_tokens=4, max_retries=3
        )

    assert ask().usage.completion_tokens <= 4
    try:
        ask()
    except litellm.RateLimitError as error:
        check_error(error)
    else:
        raise AssertionError("the budget has no end")


if __name__ == "__main__":
    _, base_url, key, sdk, model = sys.argv
    {"openai": check_openai, "litellm": check_litellm}[sdk](base_url, key, model)
