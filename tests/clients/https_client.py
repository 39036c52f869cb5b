"""Uses a gateway over HTTPS: https_client.py BASE_URL API_KEY      BASE_URL ends in /v1.

The certificate is trusted by SSL_CERT_FILE for OpenAI's client, and by a context of its own for the HTTP client below it.
"""

import os
import ssl
import sys

import httpx2
import openai

base_url, key = sys.argv[1:]
messages = [{"role": "user", "content": "x"}]

client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
answer = client.chat.completions.create(model="any", messages=messages)
assert answer.choices[0].message.content, answer
pieces = list(client.chat.completions.create(model="any", messages=messages, stream=True))
assert len(pieces) > 1, pieces

context = ssl.create_default_context(cafile=os.environ.pop("SSL_CERT_FILE"))
headers = {"Authorization": f"Bearer {key}"}
assert httpx2.get(f"{base_url}/models", headers=headers, verify=context).status_code == 200
try:
    httpx2.get(f"{base_url}/models", headers=headers)
except httpx2.ConnectError:
    pass
else:
    raise AssertionError("a certificate without an authority was taken")
