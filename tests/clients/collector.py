"""An OpenTelemetry collector that writes what it gets, decoded, as one line of JSON for each export.

Usage: collector.py [PORT [STATUS [ADDRESS]]]. The first line of its output is its port. With a STATUS other than 200 it takes
nothing. It listens on 127.0.0.1 unless ADDRESS names another address.
"""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def attributes(holder):
    """Returns attributes as a dictionary of plain values."""

    def plain(value):
        kind = value.WhichOneof("value")
        return getattr(value, kind) if kind else None

    return {attribute.key: plain(attribute.value) for attribute in holder.attributes}


def span_of(span):
    """Returns a span with ids as hexadecimal digits and times in nanoseconds."""
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "name": span.name,
        "kind": MessageToDict(span).get("kind", ""),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes(span),
        "failed": span.status.code == 2,
        "why": span.status.message,
    }


class Collector(BaseHTTPRequestHandler):
    """Answers exports."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Decodes one export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            span_of(span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        service = [attributes(resource.resource) for resource in request.resource_spans]
        headers = {name.lower(): value for name, value in self.headers.items()}
        print(json.dumps({"path": self.path, "headers": headers, "service": service, "spans": spans}), flush=True)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(STATUS)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Writes no log."""


PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 0
STATUS = int(sys.argv[2]) if len(sys.argv) > 2 else 200
ADDRESS = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
server = ThreadingHTTPServer((ADDRESS, PORT), Collector)
print(server.server_address[1], flush=True)
server.serve_forever()
