"""Uses a gateway through the OpenAI SDK: openai_client.py BASE_URL API_KEY chat|embedding|fleet|once|repeated|emoji

BASE_URL ends in /v1. A failed check ends the program with an AssertionError or the SDK's exception. `fleet` uses every
chat and embedding model, by its id and by its aliases. `once` and `repeated` send a chat that is refused with 504 or 503,
with the SDK's own retries. `emoji` asks for many streams of a model whose answers begin with an emoji.
"""

import sys
import time

import openai
import pydantic

QUESTION = [{"role": "user", "content": "Tell me something."}]


def client_of(base_url, key):
    # A retry would hide a failure.
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60)


def check_count(client, model):
    counted = client.responses.input_tokens.count(model=model, input="one two three")
    assert counted.input_tokens > 0, counted


def check_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0)
    choice = answer.choices[0]
    assert answer.model == model, f"asked for {model}: {answer}"
    assert choice.message.role == "assistant", answer
    assert choice.message.content, f"no content: {answer}"
    assert choice.finish_reason in ("stop", "length"), answer
    assert 0 < answer.usage.completion_tokens <= 8, answer


def check_stream(client, model):
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=8, temperature=0, stream=True
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {model}, f"asked for {model}: {chunks}"
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert len(chunks) > 2, f"not streamed: {chunks}"
    assert "".join(choice.delta.content or "" for choice in choices), f"no text: {chunks}"
    assert choices[-1].finish_reason in ("stop", "length"), f"the stream has no end: {chunks}"


def check_azure(base_url, key, model):
    """The SDK's class for Azure names the model in the path, and sends the key in a header of its own."""
    client = openai.AzureOpenAI(
        azure_endpoint=base_url.removesuffix("/v1"), api_key=key, api_version="2024-10-21", max_retries=0, timeout=60
    )
    check_chat(client, model)
    check_stream(client, model)


class Digit(pydantic.BaseModel):
    digit: int


def check_responses(client, model):
    with client.responses.stream(model=model, input="Tell me something.", max_output_tokens=8, temperature=0) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    assert events[-1].type in ("response.completed", "response.incomplete"), events
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) and events[-1].response.output_text == "".join(deltas), events
    if events[-1].type == "response.incomplete":
        assert events[-1].response.incomplete_details.reason == "max_output_tokens", events
    parsed = client.responses.parse(
        model=model, input="Give me a digit.", text_format=Digit, max_output_tokens=60, temperature=0
    )
    assert isinstance(parsed.output_parsed, Digit), parsed


def check_emoji(client, model):
    for _ in range(30):
        stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=30, stream=True)
        choices = [chunk.choices[0] for chunk in stream if chunk.choices]
        assert choices[0].delta.role == "assistant", choices
        assert "".join(choice.delta.content or "" for choice in choices).startswith("\U0001f30c"), choices
        with client.responses.stream(model=model, input="Tell me something.") as stream:
            response = stream.get_final_response()
        assert response.status == "completed" and response.output_text.startswith("\U0001f30c"), response


def check_parameters(client, model):
    for options, name in (({"temperature": 3}, "temperature"), ({"n": 0}, "n"), ({"stop": 5}, "stop")):
        try:
            client.chat.completions.create(model=model, messages=QUESTION, **options)
        except openai.BadRequestError as error:
            assert (error.code, error.param) == ("invalid_parameter", name), error.body
        else:
            raise AssertionError(f"{options} was taken")


def check_embeddings(client, model):
    texts = ["hello there", "something else", "a third, rather longer text"]
    # Without the option, the SDK asks for base64 and decodes it; clients use both.
    for options in ({"encoding_format": "float"}, {}):
        answer = client.embeddings.create(model=model, input=texts, **options)
        assert answer.model == model, f"asked for {model}: {answer}"
        vectors = [item.embedding for item in answer.data]
        assert [item.index for item in answer.data] == list(range(len(texts))), answer
        assert vectors[0], "an empty vector"
        assert len({len(vector) for vector in vectors}) == 1, f"lengths {[len(vector) for vector in vectors]}"
        assert all(isinstance(number, float) for vector in vectors for number in vector), vectors
        assert vectors[0] != vectors[1], "two texts have the same vector"


def check_wrong_key(base_url):
    try:
        client_of(base_url, "wrong-secret").models.list()
    except openai.AuthenticationError as error:
        assert error.status_code == 401, error
        assert error.code == "invalid_api_key", f"code {error.code!r}: {error}"
    else:
        raise AssertionError("a wrong key was accepted")


def check_unknown_model(client):
    try:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", f"code {error.code!r}: {error}"
    else:
        raise AssertionError("a model that is not there was found")


def check_fleet(client):
    kinds = set()
    for model in client.models.list():
        meta = model.model_extra["meta"]
        kinds.add(meta["kind"])
        assert client.models.retrieve(model.id).id == model.id
        for name in [model.id, *meta["aliases"]]:
            if meta["kind"] == "chat":
                check_chat(client, name)
                check_stream(client, name)
            elif meta["kind"] == "embedding":
                check_embeddings(client, name)
    assert kinds == {"chat", "embedding", "rerank"}, kinds
    check_unknown_model(client)


def check_retries(base_url, key, status, retries):
    """The SDK sends a refused chat again exactly as often as it should, after the pauses that the gateway asks for."""
    sent, pauses = [], []
    time.sleep = pauses.append
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    client = openai.OpenAI(base_url=base_url, api_key=key, timeout=60, max_retries=2, http_client=http_client)
    try:
        client.chat.completions.create(model="m", messages=QUESTION)
    except openai.APIStatusError as error:
        assert error.status_code == status, error
        assert error.response.headers["x-should-retry"] == ("true" if retries else "false"), error.response.headers
    else:
        raise AssertionError("the chat was not refused")
    assert len(sent) == 1 + retries, f"sent {len(sent)} times"
    assert pauses == [5.0] * retries, f"pauses {pauses}"


def main():
    base_url, key, kind = sys.argv[1:]
    assert kind in ("chat", "embedding", "fleet", "once", "repeated", "emoji"), f"unknown kind {kind!r}"
    if kind == "once":
        return check_retries(base_url, key, 504, 0)
    if kind == "repeated":
        return check_retries(base_url, key, 503, 2)
    client = client_of(base_url, key)
    if kind == "fleet":
        check_fleet(client)
        check_wrong_key(base_url)
        return
    models = [model.id for model in client.models.list()]
    assert len(models) == 1 and models[0], f"models {models}"
    if kind == "emoji":
        return check_emoji(client, models[0])
    if kind == "chat":
        check_chat(client, models[0])
        check_responses(client, models[0])
        check_stream(client, models[0])
        check_count(client, models[0])
        check_parameters(client, models[0])
        check_azure(base_url, key, models[0])
    else:
        check_embeddings(client, models[0])
    check_wrong_key(base_url)


if __name__ == "__main__":
    main()
