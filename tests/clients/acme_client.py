"""Gets a certificate from a CA with certbot's library: acme_client.py DIRECTORY PORT NAME...

The CA looks at the challenges at PORT of this machine. REQUESTS_CA_BUNDLE names its root. Needs acme < 4, the last versions
with TLS-ALPN-01.
"""

import sys
import threading

import josepy
from acme import challenges, client, crypto_util, messages, standalone
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

directory, port, *names = sys.argv[1:]


def private_key():
    return ec.generate_private_key(ec.SECP256R1())


account_key = josepy.JWKEC(key=private_key())
net = client.ClientNetwork(account_key, alg=josepy.ES256, user_agent="test")
ca = client.ClientV2(messages.Directory.from_json(net.get(directory).json()), net=net)
registration = messages.NewRegistration.from_data(email="ops@example.org", terms_of_service_agreed=True)
ca.new_account(registration)

key = private_key()
pem = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
order = ca.new_order(crypto_util.make_csr(pem, names))
shown, answers = {}, []
for authorization in order.authorizations:
    found = [body for body in authorization.body.challenges if isinstance(body.chall, challenges.TLSALPN01)]
    assert len(found) == 1, authorization
    name = authorization.body.identifier.value
    response = found[0].chall.response(account_key)
    certificate, of_certificate = response.gen_cert(name)
    shown[name.encode()] = (of_certificate, certificate)
    answers.append((found[0], response))
server = standalone.TLSALPN01Server(("127.0.0.1", int(port)), [], shown)
threading.Thread(target=server.serve_forever, daemon=True).start()
for challenge, response in answers:
    ca.answer_challenge(challenge, response)
chain = ca.poll_and_finalize(order).fullchain_pem
leaf = x509.load_pem_x509_certificates(chain.encode())[0]
issued_for = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
assert sorted(issued_for) == sorted(names), issued_for
