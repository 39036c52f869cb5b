"""Uses a gateway through Ollama's own client: ollama_client.py URL API_KEY CHAT EMBEDDING

The last two arguments are names of models. A failed check ends the program with an AssertionError or the client's
exception.
"""

import sys

import ollama

QUESTION = [{"role": "user", "content": "Tell me something."}]
OPTIONS = {"num_predict": 6, "temperature": 0, "num_ctx": 2048}


def check_counts(part):
    assert part.done and part.done_reason in ("stop", "length"), part
    assert part.total_duration > 0 and part.eval_duration > 0 and part.load_duration is not None, part
    assert part.prompt_eval_count > 0 and 0 < part.eval_count <= 6, part


def check_chat(client, model):
    whole = client.chat(model=model, messages=QUESTION, options=OPTIONS)
    assert whole.message.role == "assistant" and whole.message.content, whole
    check_counts(whole)
    parts = list(client.chat(model=f"{model}:latest", messages=QUESTION, options=OPTIONS, stream=True, keep_alive="5m"))
    assert len(parts) > 2 and "".join(part.message.content for part in parts) == whole.message.content, parts
    check_counts(parts[-1])


def check_tools(client, model):
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        Args:
          a: the first
          b: the second
        """
        return a + b

    call = {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    messages = QUESTION + [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "add", "content": "3"},
    ]
    answer = client.chat(model=model, messages=messages, tools=[add], options=OPTIONS)
    assert answer.message.content or answer.message.tool_calls, answer


def check_generate(client, model):
    whole = client.generate(model=model, prompt="Once upon a time", raw=True, options=OPTIONS)
    assert whole.response, whole
    check_counts(whole)
    parts = list(client.generate(model=model, prompt="Once upon a time", raw=True, options=OPTIONS, stream=True))
    assert "".join(part.response for part in parts) == whole.response, parts
    check_counts(parts[-1])
    loaded = client.generate(model=model)
    assert loaded.done_reason == "load" and loaded.response == "", loaded


def check_embed(client, model):
    answer = client.embed(model=model, input=["a bird", "rain"])
    assert len(answer.embeddings) == 2 and answer.embeddings[0] != answer.embeddings[1], answer
    assert len(client.embed(model=model, input="a bird", dimensions=8).embeddings[0]) == 8
    single = client.embeddings(model=model, prompt="a bird")
    assert list(single.embedding) == list(answer.embeddings[0]), single


def check_models(client, chat, embedding):
    names = [model.model for model in client.list().models]
    assert f"{chat}:latest" in names and f"{embedding}:latest" in names, names
    shown = client.show(chat)
    assert "completion" in shown.capabilities and shown.details.format == "gguf", shown
    assert any(name.endswith(".context_length") for name in shown.modelinfo), shown
    assert "embedding" in client.show(embedding).capabilities
    running = client.ps().models
    assert f"{chat}:latest" in [model.model for model in running], running
    assert all(model.expires_at and model.size for model in running), running


def check_errors(client, model):
    for request, status in (
        (lambda: client.chat(model="no-such-model", messages=QUESTION), 404),
        (lambda: list(client.chat(model="no-such-model", messages=QUESTION, stream=True)), 404),
        (lambda: client.chat(model=model, messages=QUESTION, options={"top_p": 2}), 400),
        (lambda: client.pull("llama3"), 403),
    ):
        try:
            request()
        except ollama.ResponseError as error:
            assert error.status_code == status and error.error and not error.error.startswith("{"), error
        else:
            raise AssertionError("a request that cannot be served was answered")


def main():
    url, key, chat, embedding = sys.argv[1:]
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    check_chat(client, chat)
    check_tools(client, chat)
    check_generate(client, chat)
    check_embed(client, embedding)
    check_models(client, chat, embedding)
    check_errors(client, chat)


main()
