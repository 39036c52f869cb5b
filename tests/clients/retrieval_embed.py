"""Embeds through the clients of the vendors: retrieval_embed.py BASE_URL API_KEY MODEL CLIENT...

BASE_URL ends in /v1. Each CLIENT is one of the functions below; one program runs them all, because they share most of
what they import. The model has vectors of 64 numbers, a prompt for queries, and the alias embed-english-v3.0. A failed
check ends the program with an AssertionError or the client's exception.
"""

import math
import os
import sys

# Uses the list of prices in the package, so that LiteLLM downloads none.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

TEXTS = ["a small bird", "rain falls on the road"]
WIDTH = 64
TIMEOUT = 60


def check(vectors, width=WIDTH, count=len(TEXTS)):
    vectors = [list(vector) for vector in vectors]
    assert [len(vector) for vector in vectors] == [width] * count, vectors
    assert all(isinstance(number, float) for vector in vectors for number in vector), vectors
    assert all(abs(math.hypot(*vector) - 1) < 1e-3 for vector in vectors), vectors
    assert count == 1 or vectors[0] != vectors[1], vectors
    return vectors


def near(one, other):
    return all(abs(a - b) < 1e-4 for a, b in zip(one, other, strict=True))


def openai(base, key, model):
    import openai

    client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=TIMEOUT)
    # Without encoding_format the SDK asks for base64 and decodes it.
    for dimensions in (8, WIDTH):
        answers = [
            client.embeddings.create(model=model, input=TEXTS, dimensions=dimensions, **options)
            for options in ({}, {"encoding_format": "float"})
        ]
        packed, plain = (check([entry.embedding for entry in answer.data], dimensions) for answer in answers)
        assert all(near(*pair) for pair in zip(packed, plain)), (packed, plain)
        assert answers[0].usage.prompt_tokens > 0 and answers[0].model == model, answers[0]
    try:
        client.embeddings.create(model=model, input="a", dimensions=WIDTH + 1)
    except openai.BadRequestError as error:
        assert error.code == "invalid_parameter" and error.param == "dimensions", error
    else:
        raise AssertionError("more dimensions than there are were given")
    # With a base address that lacks /v1.
    client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=TIMEOUT)
    check([entry.embedding for entry in client.embeddings.create(model=model, input=TEXTS).data])


def cohere(base, key, model):
    import cohere

    client = cohere.Client(key, base_url=base, timeout=TIMEOUT)
    check(client.embed(texts=TEXTS, model=model, input_type="search_document").embeddings)
    by_type = client.embed(texts=TEXTS, model=model, input_type="search_query", embedding_types=["float", "int8"])
    check(by_type.embeddings.float_)
    client = cohere.ClientV2(key, base_url=base, timeout=TIMEOUT)
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = client.embed(texts=TEXTS, model=model, input_type="search_query", embedding_types=types, output_dimension=32)
    vectors = check(answer.embeddings.float_, 32)
    assert all(abs(a - b * 127) <= 1 for a, b in zip(answer.embeddings.int8[0], vectors[0], strict=True)), answer
    assert len(answer.embeddings.ubinary[0]) == len(answer.embeddings.binary[0]) == 4, answer
    assert answer.texts == TEXTS and answer.meta.api_version.version == "2", answer
    content = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    check(client.embed(inputs=content, model=model, input_type="search_query", embedding_types=["float"]).embeddings.float_)
    try:
        client.embed(texts=["bird " * 3000], model=model, input_type="clustering", truncate="NONE")
    except cohere.BadRequestError as error:
        assert "texts[0]" in str(error.body), error
    else:
        raise AssertionError("a text that is too long was embedded")


def voyageai(base, key, model):
    import voyageai

    client = voyageai.Client(api_key=key, base_url=f"{base}/v1", max_retries=0, timeout=TIMEOUT)
    floats = check(client.embed(TEXTS, model=model, input_type="document").embeddings)
    check(client.embed(TEXTS, model=model, output_dimension=16).embeddings, 16)
    whole = client.embed(TEXTS, model=model, output_dtype="int8", input_type="document").embeddings
    assert all(abs(a - b * 127) <= 1 for a, b in zip(whole[0], floats[0], strict=True)), (whole[0], floats[0])
    bits = client.embed(TEXTS, model=model, output_dtype="ubinary").embeddings
    assert len(bits[0]) == WIDTH // 8, bits
    check(client.embed(["bird " * 3000], model=model, truncation=True).embeddings, count=1)
    try:
        client.embed(["bird " * 3000], model=model, truncation=False)
    except voyageai.error.InvalidRequestError as error:
        assert "input[0]" in str(error), error
    else:
        raise AssertionError("a text that is too long was embedded")


def langchain_cohere(base, key, model):
    from langchain_cohere import CohereEmbeddings

    embeddings = CohereEmbeddings(cohere_api_key=key, base_url=base, model=model, max_retries=0)
    check(embeddings.embed_documents(TEXTS))
    check([embeddings.embed_query(TEXTS[0])], count=1)


def langchain_voyageai(base, key, model):
    from langchain_voyageai import VoyageAIEmbeddings

    embeddings = VoyageAIEmbeddings(api_key=key, base_url=f"{base}/v1", model=model, batch_size=2)
    # It counts tokens with a tokenizer that it would download.
    embeddings._client.tokenize = lambda texts, model: [text.split() for text in texts]
    check(embeddings.embed_documents(TEXTS))
    check([embeddings.embed_query(TEXTS[0])], count=1)


def llama_index(base, key, model):
    import voyageai
    from llama_index.embeddings.cohere import CohereEmbedding
    from llama_index.embeddings.jinaai import JinaEmbedding
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.embeddings.voyageai import VoyageEmbedding

    jina = JinaEmbedding(model=model, api_key=key, dimensions=16, task="text-matching", encoding_queries="binary")
    voyage = VoyageEmbedding(model_name=model, voyage_api_key=key, truncation=True)
    # They have no option for the address.
    jina._api.api_url = f"{base}/v1/embeddings"
    voyage._client = voyageai.Client(api_key=key, base_url=f"{base}/v1", max_retries=0)
    # It counts tokens with a tokenizer that it would download.
    voyage._client.tokenize = lambda texts, model: [text.split() for text in texts]
    for embeddings, width in [
        (TextEmbeddingsInference(model_name=model, base_url=base, auth_token=key, timeout=TIMEOUT), WIDTH),
        # It takes Cohere's names only: an alias of the model.
        (CohereEmbedding(api_key=key, base_url=base, model_name="embed-english-v3.0", max_retries=1), WIDTH),
        (jina, 16),
        (voyage, WIDTH),
    ]:
        vectors = check(embeddings.get_text_embedding_batch(TEXTS), width)
        asked = embeddings.get_query_embedding(TEXTS[0])
        if embeddings is jina:
            assert asked == [int(number > 0) for number in vectors[0]], asked
        else:
            check([asked], width, count=1)


def haystack(base, key, model):
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder

    options = {"api_key": Secret.from_token(key), "model": model, "api_base_url": base}
    check([CohereTextEmbedder(**options).run(text=TEXTS[0])["embedding"]], count=1)
    embedder = CohereDocumentEmbedder(**options, progress_bar=False)
    documents = embedder.run(documents=[Document(content=text) for text in TEXTS])["documents"]
    check(document.embedding for document in documents)


def huggingface_hub(base, key, model):
    from huggingface_hub import InferenceClient

    client = InferenceClient(base_url=base, token=key, timeout=TIMEOUT)
    whole = check(client.feature_extraction(TEXTS, normalize=True, truncate=True).tolist())
    check(client.feature_extraction(TEXTS, dimensions=16).tolist(), 16)
    asked = client.feature_extraction(TEXTS[0], prompt_name="query", truncation_direction="left").tolist()
    assert not near(check(asked, count=1)[0], whole[0]), "the prompt changed nothing"
    client = InferenceClient(model=f"{base}/similarity", token=key, timeout=TIMEOUT)
    near_one, other = client.sentence_similarity(TEXTS[0], TEXTS)
    assert abs(near_one - 1) < 1e-3 and other < near_one, (near_one, other)


def litellm(base, key, model):
    import litellm

    def embed(provider, api_base, **options):
        return litellm.embedding(
            model=f"{provider}/{model}", input=TEXTS, api_base=api_base, api_key=key, timeout=TIMEOUT, num_retries=0, **options
        )

    litellm.drop_params = True
    for provider, api_base, options in [
        # It drops dimensions for models that it does not know, unless told otherwise.
        ("openai", f"{base}/v1", {"dimensions": 8, "allowed_openai_params": ["dimensions"]}),
        ("hosted_vllm", f"{base}/v1", {}),
        ("jina_ai", f"{base}/v1", {"dimensions": 8}),
        ("cohere", f"{base}/v1/embed", {"input_type": "search_query"}),
        ("voyage", f"{base}/v1", {}),
        ("infinity", base, {}),
    ]:
        answer = embed(provider, api_base, **options)
        check([entry["embedding"] for entry in answer.data], options.get("dimensions", WIDTH))


def main():
    base, key, model, *clients = sys.argv[1:]
    for client in clients:
        globals()[client](base.removesuffix("/v1"), key, model)


if __name__ == "__main__":
    main()
