"""Clients of a gateway behind a bad network: each answer is whole, and equal to that of a good network.

Usage: network_client.py KEY GOOD_URL PLAIN_URL SECURE_URL LINK_PID. GOOD_URL is a gateway with the same model that is not
behind the link. Sends chats, streams, uploads and HTTP/2, and cuts the link for a few seconds meanwhile. Needs curl with HTTP/2.
"""

import concurrent.futures
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

KEY, GOOD, PLAIN, SECURE, LINK = sys.argv[1:6]
# Longer than all that the link delays.
PATIENCE = 120
UPLOAD = 10 << 20
CLIENTS = 6
REQUESTS = 5
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE


def post(url, body, path="/v1/chat/completions"):
    """Posts bytes on a connection of their own; returns status and body. An answer that is cut raises."""
    address = urllib.parse.urlsplit(url)
    if address.scheme == "https":
        connection = http.client.HTTPSConnection(address.netloc, timeout=PATIENCE, context=UNCHECKED)
    else:
        connection = http.client.HTTPConnection(address.netloc, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, read


def chat(model, stream=False, text="Say hello."):
    """Returns the body of a chat whose answer is always the same."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 48, "temperature": 0, "seed": 1}
    return json.dumps({**body, "stream": stream}).encode()


def whole_text(url, model):
    """Returns the text of an answer."""
    status, body = post(url, chat(model))
    assert status == 200, (status, body)
    return json.loads(body)["choices"][0]["message"]["content"]


def streamed_text(url, model):
    """Returns the text of a stream, which must have its end mark."""
    status, body = post(url, chat(model, stream=True))
    events = [event.removeprefix("data: ") for event in body.decode().split("\n\n") if event.startswith("data: ")]
    assert status == 200 and events[-1] == "[DONE]", (status, body[-300:])
    deltas = [json.loads(event)["choices"] for event in events[:-1]]
    return "".join(choices[0]["delta"].get("content") or "" for choices in deltas if choices)


def upload(url):
    """Sends a prompt that no model holds: the gateway reads all of it, and llama-server refuses it."""
    status, body = post(url, chat("local", text="x " * (UPLOAD // 2)))
    assert status == 400 and "error" in json.loads(body), (status, body[:300])
    return "refused"


def over_http2(url, expected):
    """Asks for several streams at once on one connection of HTTP/2."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, str(number)) for number in range(4)]
        # Each transfer needs its own: --next forgets them.
        options = ["-sk", "--http2", "--max-time", str(PATIENCE), "-w", "%{http_version} %{http_code}\n"]
        options += ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json", "-d", chat("local").decode()]
        arguments = ["curl", "--parallel"]
        for number, output in enumerate(outputs):
            arguments += ["--next"] if number > 0 else []
            arguments += [*options, "-o", output, f"{url}/v1/chat/completions"]
        # Longer than curl's own limit, for a curl that does not keep it.
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=PATIENCE + 30)
        assert done.stdout.split("\n")[:-1] == ["2 200"] * len(outputs), done.stdout
        for output in outputs:
            with open(output, encoding="utf-8") as file:
                assert json.load(file)["choices"][0]["message"]["content"] == expected


def main():
    """Runs all clients at once."""
    expected = whole_text(GOOD, "local")
    assert streamed_text(GOOD, "local") == expected and len(expected) > 20, expected
    counts = {"chats": 0, "streams": 0, "uploads": 0, "HTTP/2": 0}
    lock = threading.Lock()

    def count(kind):
        with lock:
            counts[kind] += 1

    def client(number):
        url = [PLAIN, SECURE][number % 2]
        for turn in range(REQUESTS):
            model = "remote" if url == PLAIN and turn % 2 else "local"
            assert whole_text(url, model) == expected
            count("chats")
            assert streamed_text(url, model) == expected
            count("streams")

    def uploader(url):
        upload(url)
        count("uploads")

    def multiplexer():
        over_http2(SECURE, expected)
        count("HTTP/2")

    with concurrent.futures.ThreadPoolExecutor(CLIENTS + 3) as pool:
        work = [pool.submit(client, number) for number in range(CLIENTS)]
        work += [pool.submit(uploader, PLAIN), pool.submit(uploader, SECURE), pool.submit(multiplexer)]
        time.sleep(2)
        os.kill(int(LINK), signal.SIGUSR1)
        for one in work:
            one.result()
    print(json.dumps(counts))


main()
