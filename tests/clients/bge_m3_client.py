#!/usr/bin/env python3
"""Asks for the vectors of BGE-M3 with OpenAI's SDK, which asks for base64 by itself.

    bge_m3_client.py BASE_URL KEY
"""

import sys

from openai import OpenAI

base_url, key = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key=key, max_retries=0)
texts = ["a small bird", "rain falls"]


def vectors(**members):
    answer = client.embeddings.create(model="bge-m3", input=texts, extra_body=members)
    assert [entry.index for entry in answer.data] == [0, 1] and answer.usage.prompt_tokens > 0, answer
    return answer.data


plain = vectors()
for entry, same in zip(plain, vectors(return_sparse=True, return_colbert=True), strict=True):
    assert len(entry.embedding) == 64 and entry.embedding == same.embedding, same
    assert all(name.isdigit() and weight > 0 for name, weight in same.sparse_embedding.items()), same
    assert same.sparse_embedding and all(len(row) == 48 for row in same.colbert_embedding), same
for entry in vectors(embedding_type="sparse"):
    assert isinstance(entry.embedding, dict) and entry.embedding, entry
for entry in vectors(embedding_type="colbert"):
    assert len(entry.embedding[0]) == 48, entry
for entry in vectors(return_dense=False, return_sparse=True):
    assert entry.embedding == [] and entry.sparse_embedding, entry
