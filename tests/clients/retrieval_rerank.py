"""Ranks through the clients of the vendors: retrieval_rerank.py BASE_URL API_KEY MODEL CLIENT...

BASE_URL ends in /v1. Each CLIENT is one of the functions below; one program runs them all, because they share most of
what they import. A failed check ends the program with an AssertionError or the client's exception.
"""

import os
import sys

# Uses the list of prices in the package, so that LiteLLM downloads none.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

QUERY = "a small bird"
TEXTS = ["rain falls on the road", "the sparrow sings", "birds are small"]
TIMEOUT = 60


def check(entries, count=len(TEXTS)):
    """Checks pairs of index and score, as a client gives them, and returns the indices."""
    entries = list(entries)
    assert len(entries) == count, entries
    scores = [score for _, score in entries]
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores), entries
    assert scores == sorted(scores, reverse=True), entries
    indices = [index for index, _ in entries]
    assert len(set(indices)) == count and set(indices) <= set(range(len(TEXTS))), entries
    return indices


def cohere(base, key, model):
    import cohere

    def entries(answer):
        return [(entry.index, entry.relevance_score) for entry in answer.results]

    client = cohere.ClientV2(key, base_url=base, timeout=TIMEOUT)
    answer = client.rerank(model=model, query=QUERY, documents=TEXTS)
    best = check(entries(answer))[0]
    assert answer.id and answer.meta.api_version.version == "2", answer
    answer = client.rerank(model=model, query=QUERY, documents=TEXTS, top_n=1, max_tokens_per_doc=100)
    assert check(entries(answer), 1) == [best], answer

    client = cohere.Client(key, base_url=base, timeout=TIMEOUT)
    objects = [{"text": text} for text in TEXTS]
    answer = client.rerank(model=model, query=QUERY, documents=objects, top_n=2, return_documents=True)
    check(entries(answer), 2)
    assert [entry.document.text for entry in answer.results] == [TEXTS[entry.index] for entry in answer.results], answer
    assert answer.meta.billed_units.search_units == 1, answer
    try:
        cohere.ClientV2("wrong-key-0123456789", base_url=base).rerank(model=model, query=QUERY, documents=TEXTS)
    except cohere.UnauthorizedError as error:
        assert error.body["message"] == "Invalid API key", error
    else:
        raise AssertionError("a wrong key was accepted")


def voyageai(base, key, model):
    import voyageai

    client = voyageai.Client(api_key=key, base_url=f"{base}/v1", max_retries=0, timeout=TIMEOUT)
    answer = client.rerank(QUERY, TEXTS, model=model)
    check((entry.index, entry.relevance_score) for entry in answer.results)
    assert answer.total_tokens > 0, answer
    answer = client.rerank(QUERY, TEXTS, model=model, top_k=1, truncation=True)
    check([(entry.index, entry.relevance_score) for entry in answer.results], 1)
    assert answer.results[0].document == TEXTS[answer.results[0].index], answer
    try:
        client.rerank(QUERY, [], model=model)
    except voyageai.error.InvalidRequestError as error:
        assert "documents must not be empty" in str(error), error
    else:
        raise AssertionError("no documents were ranked")


def langchain_cohere(base, key, model):
    from langchain_cohere import CohereRerank

    ranker = CohereRerank(cohere_api_key=key, base_url=base, model=model, top_n=2)
    check([(entry["index"], entry["relevance_score"]) for entry in ranker.rerank(TEXTS, QUERY)], 2)


def langchain_voyageai(base, key, model):
    from langchain_core.documents import Document
    from langchain_voyageai import VoyageAIRerank

    ranker = VoyageAIRerank(voyage_api_key=key, base_url=f"{base}/v1", model=model, top_k=2)
    documents = [Document(page_content=text) for text in TEXTS]
    ranked = ranker.compress_documents(documents, QUERY)
    check([(TEXTS.index(entry.page_content), entry.metadata["relevance_score"]) for entry in ranked], 2)


def llama_index(base, key, model):
    import voyageai
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.cohere_rerank import CohereRerank
    from llama_index.postprocessor.jinaai_rerank import JinaRerank
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    rankers = [
        CohereRerank(api_key=key, base_url=base, model=model, top_n=2),
        JinaRerank(api_key=key, base_url=f"{base}/v1", model=model, top_n=2),
        TextEmbeddingInference(base_url=base, auth_token=f"Bearer {key}", model_name=model, top_n=2, timeout=TIMEOUT),
        VoyageAIRerank(api_key=key, model=model, top_n=2),
    ]
    # It has no option for the address.
    rankers[-1]._client = voyageai.Client(api_key=key, base_url=f"{base}/v1")
    for ranker in rankers:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
        ranked = ranker.postprocess_nodes(nodes, query_str=QUERY)
        check([(TEXTS.index(node.node.text), node.score) for node in ranked], 2)


def haystack(base, key, model):
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker(model=model, api_key=Secret.from_token(key), api_base_url=base, top_k=2)
    ranked = ranker.run(query=QUERY, documents=[Document(content=text) for text in TEXTS])["documents"]
    check([(TEXTS.index(document.content), document.score) for document in ranked], 2)


def rerankers(base, key, model):
    from rerankers.models.api_rankers import APIRanker

    paths = {
        "cohere": "/v1/rerank",
        "jina": "/v1/rerank",
        "voyage": "/v1/rerank",
        "mixedbread.ai": "/v1/reranking",
        "pinecone": "/rerank",
        "text-embeddings-inference": "/rerank",
    }
    for provider, path in paths.items():
        ranked = APIRanker(model, key, provider, url=f"{base}{path}").rank(QUERY, TEXTS)
        check((TEXTS.index(result.document.text), result.score) for result in ranked.results)


def litellm(base, key, model):
    import litellm

    addresses = {
        "cohere": base,
        "jina_ai": f"{base}/v1",
        "hosted_vllm": f"{base}/v1",
        "infinity": base,
        "huggingface": base,
        "voyage": f"{base}/v1",
    }
    for provider, address in addresses.items():
        # Infinity and vLLM write documents differently in answer to the same request, and here it is vLLM's form.
        options = {"return_documents": False} if provider == "infinity" else {}
        answer = litellm.rerank(
            model=f"{provider}/{model}",
            query=QUERY,
            documents=TEXTS,
            top_n=2,
            api_base=address,
            api_key=key,
            timeout=TIMEOUT,
            num_retries=0,
            **options,
        )
        check([(entry["index"], entry["relevance_score"]) for entry in answer.results], 2)


def main():
    base, key, model, *clients = sys.argv[1:]
    for client in clients:
        globals()[client](base.removesuffix("/v1"), key, model)


if __name__ == "__main__":
    main()
