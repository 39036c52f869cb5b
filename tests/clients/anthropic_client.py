"""Uses a gateway through the Anthropic SDK: anthropic_client.py BASE_URL API_KEY [emoji]

`emoji` asks for many streams of a model whose answers begin with an emoji, and stop at its end.

BASE_URL may end in /v1, which this SDK adds itself. A failed check ends the program with an AssertionError or the SDK's
exception.
"""

import sys

import anthropic

# The gateway serves one model under any name.
REQUEST = {
    "model": "any",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "Tell me something."}],
    "extra_body": {"temperature": 0},
}


def client_of(base_url, key):
    # A retry would hide a failure.
    return anthropic.Anthropic(base_url=base_url, api_key=key, max_retries=0, timeout=60)


def check_message(client):
    message = client.messages.create(**REQUEST)
    assert message.role == "assistant", message
    assert "".join(block.text for block in message.content if block.type == "text"), f"no text: {message}"
    assert message.stop_reason in ("end_turn", "max_tokens"), message
    assert 0 < message.usage.output_tokens <= 8, message


def check_stream(client):
    with client.messages.stream(**REQUEST) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1 and "".join(pieces), f"not streamed: {pieces}"
    assert message.content[0].text == "".join(pieces), message
    assert message.stop_reason in ("end_turn", "max_tokens"), f"the stream has no end: {message}"


def check_request_id(client):
    message = client.messages.create(**REQUEST)
    assert message._request_id, message
    try:
        client.messages.create(**{**REQUEST, "messages": [{"role": "user", "content": 7}]})
    except anthropic.BadRequestError as error:
        assert error.request_id, error
        assert error.body["error"]["type"] == "invalid_request_error", error.body
    else:
        raise AssertionError("a number was taken for a text")


def check_parameters(client):
    try:
        client.messages.create(**{**REQUEST, "extra_body": {"temperature": 1.5}})
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"].startswith("temperature must be "), error.body
    else:
        raise AssertionError("a temperature of 1.5 was taken")


def check_emoji(client):
    request = {**REQUEST, "max_tokens": 30}
    for _ in range(60):
        with client.messages.stream(**request) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        assert text.startswith("\U0001f30c"), text
        assert message.role == "assistant" and message.content[0].text == text, message
    with client.messages.stream(**request, stop_sequences=["ell"]) as stream:
        message = stream.get_final_message()
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "ell"), message


def check_models(client):
    page = client.models.list(limit=20)
    assert page.has_more is False and page.first_id and page.last_id, page
    models = list(page)
    assert models and models[0].type == "model", models
    assert models[0].display_name and models[0].created_at.year > 2000, models
    assert client.models.retrieve(models[0].id).id == models[0].id


def check_wrong_key(base_url):
    try:
        client_of(base_url, "wrong-secret").messages.create(**REQUEST)
    except anthropic.AuthenticationError as error:
        assert error.status_code == 401, error
        assert error.body["type"] == "error", error.body
        assert error.body["error"]["type"] == "authentication_error", error.body
    else:
        raise AssertionError("a wrong key was accepted")


def main():
    base_url, key, *kind = sys.argv[1:]
    assert kind in ([], ["emoji"]), f"unknown kind {kind}"
    base_url = base_url.rstrip("/").removesuffix("/v1")
    client = client_of(base_url, key)
    if kind:
        return check_emoji(client)
    check_message(client)
    check_stream(client)
    check_request_id(client)
    check_parameters(client)
    check_models(client)
    check_wrong_key(base_url)


if __name__ == "__main__":
    main()
