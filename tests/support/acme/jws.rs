//! Signed requests (RFC 7515, as RFC 8555 uses it): their signatures, nonces and accounts.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{hmac, signature};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, Request, Shared};

/// A request whose signature is good.
pub(super) struct Signed {
    /// The id of the account; `None` for a request that opens one.
    pub(super) account: Option<String>,
    /// The coordinates of the key.
    pub(super) key: (String, String),
    /// `null` for a request that only asks.
    pub(super) payload: Value,
}

/// Returns the digest of a key (RFC 7638).
pub(super) fn thumbprint((x, y): &(String, String)) -> String {
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

impl Shared {
    /// Checks a signed request; returns the refusal of one that is not right.
    pub(super) fn check(&self, request: &Request) -> Result<Signed, Answer> {
        let wrong = |detail: &str| {
            self.state().mistakes.push(format!("{}: {detail}", request.path));
            Answer::problem(400, "malformed", detail)
        };
        let jws: Value = serde_json::from_slice(&request.body).map_err(|_| wrong("no JSON"))?;
        let text = |name: &str| jws[name].as_str().map(str::to_owned).ok_or_else(|| wrong("a part is missing"));
        let (protected, payload, signature) = (text("protected")?, text("payload")?, text("signature")?);
        let header: Value = decoded(&protected).ok_or_else(|| wrong("the header is no JSON"))?;
        if header["alg"] != "ES256" || header["url"] != format!("{}{}", self.url, request.path) {
            return Err(wrong("another algorithm or address"));
        }
        let (account, key) = match (&header["jwk"], header["kid"].as_str()) {
            (Value::Null, Some(id)) => {
                let known = self.state().accounts.get(id).map(|known| known.key.clone());
                let key =
                    known.ok_or_else(|| Answer::problem(400, "accountDoesNotExist", "there is no such account"))?;
                (Some(id.to_owned()), key)
            }
            (jwk, None) if jwk["kty"] == "EC" && jwk["crv"] == "P-256" => {
                let of = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
                (None, (of("x"), of("y")))
            }
            _ => return Err(wrong("expected either a key or an account")),
        };
        let signed = format!("{protected}.{payload}");
        if !is_signed(&key, signed.as_bytes(), &signature) {
            return Err(wrong("the signature is wrong"));
        }
        // Checked last, so that a client which is told of a bad one has made no other mistake.
        let mut state = self.state();
        let is_known = state.nonces.remove(header["nonce"].as_str().unwrap_or_default());
        if !is_known || state.faults.bad_nonces > 0 {
            state.faults.bad_nonces = state.faults.bad_nonces.saturating_sub(1);
            return Err(Answer::problem(400, "badNonce", "this nonce was used, or is unknown"));
        }
        drop(state);
        let payload = if payload.is_empty() {
            Value::Null
        } else {
            decoded(&payload).ok_or_else(|| wrong("the payload is no JSON"))?
        };
        Ok(Signed { account, key, payload })
    }

    /// Returns the name of the key that binds an account to one elsewhere, if the binding is good.
    pub(super) fn check_binding(&self, signed: &Signed) -> Result<Option<String>, Answer> {
        let Some((name, key)) = self.state().binding.clone() else { return Ok(None) };
        let jws = &signed.payload["externalAccountBinding"];
        let text = |name: &str| jws[name].as_str().unwrap_or_default().to_owned();
        let (protected, payload, signature) = (text("protected"), text("payload"), text("signature"));
        let header: Value = decoded(&protected).unwrap_or_default();
        let bound: Value = decoded(&payload).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let is_good = hmac::verify(&key, format!("{protected}.{payload}").as_bytes(), &tag).is_ok()
            && header == json!({"alg": "HS256", "kid": name, "url": format!("{}/account", self.url)})
            && (bound["x"].as_str(), bound["y"].as_str()) == (Some(&*signed.key.0), Some(&*signed.key.1));
        if is_good { Ok(Some(name)) } else { Err(Answer::problem(403, "externalAccountRequired", "no good binding")) }
    }
}

fn decoded(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn is_signed((x, y): &(String, String), message: &[u8], signature: &str) -> bool {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let point = [vec![4], bytes(x), bytes(y)].concat();
    let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(message, &bytes(signature)).is_ok()
}
