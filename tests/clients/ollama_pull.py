"""Pulls and deletes models through Ollama's own client: ollama_pull.py URL API_KEY

The hub of the gateway has Org/Tiny-GGUF with one model, Q8_0. A failed check ends the program with an AssertionError or
the client's exception.
"""

import sys

import ollama

MODEL = "hf.co/Org/Tiny-GGUF:Q8_0"
SERVED = "Tiny-Q8_0"


def refused(call):
    try:
        call()
    except ollama.ResponseError as error:
        return error
    raise AssertionError("it was not refused")


def names(client):
    return [model.model for model in client.list().models]


def check_pull(client):
    assert f"{SERVED}:latest" not in names(client)
    lines = list(client.pull(MODEL, stream=True))
    states = [line.status for line in lines]
    assert states[0] == "pulling manifest" and states[-1] == "success", states
    assert states[-3:] == ["verifying sha256 digest", "writing manifest", "success"], states
    last = [line for line in lines if line.digest][-1]
    assert last.status == f"pulling {last.digest.removeprefix('sha256:')[:12]}", last
    assert last.total == last.completed > 0 and len(last.digest) == len("sha256:") + 64, last
    assert f"{SERVED}:latest" in names(client)
    assert client.pull(MODEL).status == "success", "it is there"
    assert client.pull(SERVED).status == "success", "by its own name too"


def check_errors(client):
    for stream in (True, False):
        error = refused(lambda: list(client.pull("qwen3:4b", stream=stream)))
        assert error.status_code == 400 and "hf.co/ORG/NAME:QUANT" in error.error, error
        error = refused(lambda: list(client.pull("hf.co/Org/None", stream=stream)))
        assert "no repository Org/None" in error.error, error
    error = refused(lambda: client.pull(MODEL, insecure=True))
    assert error.status_code == 400 and "insecure" in error.error, error


def check_delete(client):
    assert client.delete(SERVED).status == "success"
    assert f"{SERVED}:latest" not in names(client)
    assert refused(lambda: client.delete(SERVED)).status_code == 404
    # What came as a name of the hub can be deleted by it.
    assert client.pull(MODEL).status == "success"
    assert client.delete(MODEL).status == "success"
    assert f"{SERVED}:latest" not in names(client)


def main(url, key):
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"})
    check_pull(client)
    check_errors(client)
    check_delete(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
