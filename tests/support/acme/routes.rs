//! What the CA answers (RFC 8555, section 7).

use std::{sync::Arc, thread};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Answer, BadCertificate, KnownAccount, KnownAuthorization, KnownOrder, LONG, Request, Shared, State,
    jws::{Signed, thumbprint},
};
use crate::support::certificates::{TestIssuer, pem};

impl Shared {
    pub(super) fn answer(self: &Arc<Self>, request: &Request) -> Answer {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/directory") => return self.directory(),
            ("HEAD" | "GET", "/nonce") => Answer::json(200, &json!({})),
            ("GET", path) if path.starts_with("/renewal/") => return self.renewal(),
            ("POST", _) => {
                self.check(request).and_then(|signed| self.signed(request, &signed)).unwrap_or_else(|refusal| refusal)
            }
            _ => Answer::problem(404, "malformed", "there is nothing here"),
        };
        let mut state = self.state();
        state.made += 1;
        let nonce = random_text("nonce", state.made);
        state.nonces.insert(nonce.clone());
        answer.header("Replay-Nonce", nonce).header("Cache-Control", "no-store")
    }

    fn directory(&self) -> Answer {
        let (is_downgraded, has_window, binding) = {
            let state = self.state();
            (state.faults.is_downgraded, state.window.is_some(), state.binding.is_some())
        };
        let url = if is_downgraded { self.url.replace("https://", "http://") } else { self.url.clone() };
        let mut directory = json!({
            "newNonce": format!("{url}/nonce"), "newAccount": format!("{url}/account"), "newOrder": format!("{url}/order"),
            "meta": {"termsOfService": format!("{url}/terms"), "externalAccountRequired": binding},
        });
        if has_window {
            directory["renewalInfo"] = json!(format!("{url}/renewal"));
        }
        Answer::json(200, &directory)
    }

    fn renewal(&self) -> Answer {
        let (from, to) = self.state().window.unwrap_or(LONG);
        let at = |seconds: i64| {
            let moment =
                jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + seconds).expect("a time of now");
            moment.to_string()
        };
        let window = json!({"suggestedWindow": {"start": at(from), "end": at(to)}});
        Answer::json(200, &window).header("Retry-After", 21600)
    }

    fn signed(self: &Arc<Self>, request: &Request, signed: &Signed) -> Result<Answer, Answer> {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let missing = || Answer::problem(404, "malformed", "there is nothing here");
        let nth = |text: &str| text.parse::<usize>().map_err(|_| missing());
        let Some(account) = &signed.account else {
            return if parts == ["account"] { self.open_account(signed) } else { Err(missing()) };
        };
        match parts.as_slice() {
            ["account", _] => {
                let mut state = self.state();
                if state.faults.refuses_contacts {
                    return Err(Answer::problem(400, "invalidContact", "no mail can be sent there"));
                }
                let known = state.accounts.get_mut(account).ok_or_else(missing)?;
                known.contacts = texts(&signed.payload["contact"]);
                Ok(Answer::json(200, &json!({"status": "valid", "contact": known.contacts})))
            }
            ["order"] => self.new_order(account, &signed.payload),
            ["order", order] => self.order(nth(order)?, account),
            ["authorization", id] => Ok(self.authorization(nth(id)?)),
            ["challenge", id] => {
                let id = nth(id)?;
                self.state().authorizations.get_mut(id).ok_or_else(missing)?.is_asked = true;
                let (shared, key) = (Arc::clone(self), signed.key.clone());
                thread::spawn(move || shared.look(id, &key));
                let up = format!("<{}/authorization/{id}>;rel=\"up\"", self.url);
                Ok(Answer::json(200, &self.challenge(id)).header("Link", up))
            }
            ["finalize", order] => self.finalize(nth(order)?, account, &signed.payload),
            ["certificate", order] => {
                let chain = self.state().orders.get(nth(order)?).and_then(|order| order.chain.clone());
                let body = chain.ok_or_else(missing)?;
                let headers = vec![("Content-Type".to_owned(), "application/pem-certificate-chain".to_owned())];
                Ok(Answer { status: 200, headers, body })
            }
            _ => Err(missing()),
        }
    }

    fn open_account(&self, signed: &Signed) -> Result<Answer, Answer> {
        let id = format!("{}/account/{}", self.url, thumbprint(&signed.key));
        if signed.payload["termsOfServiceAgreed"] != true {
            return Err(Answer::problem(403, "userActionRequired", "the terms are not accepted"));
        }
        let binding = self.check_binding(signed)?;
        let contacts = texts(&signed.payload["contact"]);
        let account = KnownAccount { key: signed.key.clone(), contacts, has_accepted_terms: true, binding };
        let is_new = self.state().accounts.insert(id.clone(), account).is_none();
        Ok(Answer::json(if is_new { 201 } else { 200 }, &json!({"status": "valid"})).header("Location", id))
    }

    fn new_order(&self, account: &str, payload: &Value) -> Result<Answer, Answer> {
        let mut state = self.state();
        if let Some((status, kind, detail, wait)) = state.faults.refuses_orders {
            let refusal = Answer::problem(status, kind, detail);
            return Err(if wait.is_empty() { refusal } else { refusal.header("Retry-After", wait) });
        }
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        let has_a_certificate = state.orders.iter().any(|order| order.account == account && order.chain.is_some());
        if replaces.is_some() && !has_a_certificate {
            // As Let's Encrypt refuses it.
            let detail = "requester account did not request the certificate being replaced";
            return Err(Answer::problem(403, "unauthorized", detail));
        }
        let identifiers = payload["identifiers"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = identifiers
            .iter()
            .filter(|it| it["type"] == "dns")
            .filter_map(|it| it["value"].as_str().map(str::to_owned))
            .collect();
        let first = state.authorizations.len();
        for name in &names {
            state.made += 1;
            let token = random_text("token", state.made);
            state.authorizations.push(KnownAuthorization { name: name.clone(), token, is_asked: false, outcome: None });
        }
        let authorizations = (first..first + names.len()).collect();
        state.orders.push(KnownOrder { account: account.to_owned(), names, replaces, authorizations, chain: None });
        let nth = state.orders.len() - 1;
        drop(state);
        let answer = self.order(nth, account)?;
        Ok(Answer { status: 201, ..answer }.header("Location", format!("{}/order/{nth}", self.url)))
    }

    fn order(&self, nth: usize, account: &str) -> Result<Answer, Answer> {
        let state = self.state();
        let order = state.orders.get(nth).filter(|order| order.account == account);
        let order = order.ok_or_else(|| Answer::problem(404, "malformed", "there is no such order"))?;
        let status = status_of(&state, order);
        let url = &self.url;
        let authorizations: Vec<String> =
            order.authorizations.iter().map(|id| format!("{url}/authorization/{id}")).collect();
        let identifiers: Vec<Value> = order.names.iter().map(|name| json!({"type": "dns", "value": name})).collect();
        let mut body = json!({
            "status": status, "identifiers": identifiers, "authorizations": authorizations,
            "finalize": format!("{url}/finalize/{nth}"),
        });
        if let Some(replaces) = &order.replaces {
            body["replaces"] = json!(replaces);
        }
        if order.chain.is_some() {
            body["certificate"] = json!(format!("{url}/certificate/{nth}"));
        }
        let answer = Answer::json(200, &body);
        Ok(match state.faults.asks_to_wait {
            Some(wait) => answer.header("Retry-After", wait),
            None => answer,
        })
    }

    fn authorization(&self, nth: usize) -> Answer {
        let (known, has_others) = {
            let state = self.state();
            (state.authorizations.get(nth).cloned(), state.faults.has_other_challenges)
        };
        let Some(known) = known else { return Answer::problem(404, "malformed", "there is nothing here") };
        let status = match &known.outcome {
            None => "pending",
            Some(Ok(())) => "valid",
            Some(Err(_)) => "invalid",
        };
        let dns = json!({"type": "dns-01", "url": format!("{}/challenge/none", self.url), "status": "pending", "token": random_text("dns", 0)});
        let offered = if has_others { vec![dns] } else { vec![dns, self.challenge(nth)] };
        let identifier = json!({"type": "dns", "value": known.name});
        Answer::json(200, &json!({"status": status, "identifier": identifier, "challenges": offered}))
    }

    fn challenge(&self, nth: usize) -> Value {
        let state = self.state();
        let known = &state.authorizations[nth];
        let status = match &known.outcome {
            Some(Ok(())) => "valid",
            Some(Err(_)) => "invalid",
            None if known.is_asked => "processing",
            None => "pending",
        };
        let url = format!("{}/challenge/{nth}", self.url);
        let mut challenge = json!({"type": "tls-alpn-01", "url": url, "status": status, "token": known.token});
        if let Some(Err(detail)) = &known.outcome {
            let kind = "urn:ietf:params:acme:error:unauthorized";
            challenge["error"] = json!({"type": kind, "detail": detail, "status": 403});
        }
        challenge
    }

    fn finalize(&self, nth: usize, account: &str, payload: &Value) -> Result<Answer, Answer> {
        {
            let mut state = self.state();
            let order = state.orders.get(nth).filter(|order| order.account == account).cloned();
            let order = order.ok_or_else(|| Answer::problem(404, "malformed", "there is no such order"))?;
            if status_of(&state, &order) != "ready" {
                return Err(Answer::problem(403, "orderNotReady", "the order is not ready"));
            }
            let (life, fault) = (state.life.unwrap_or(LONG), state.faults.issues);
            let csr = payload["csr"].as_str().unwrap_or_default();
            let chain = self.issue(csr, &order.names, life, fault);
            let chain = chain.map_err(|detail| Answer::problem(400, "badCSR", &detail))?;
            state.orders[nth].chain = Some(chain);
        }
        self.order(nth, account)
    }

    fn issue(
        &self,
        csr: &str,
        names: &[String],
        life: (i64, i64),
        fault: Option<BadCertificate>,
    ) -> Result<String, String> {
        let csr = URL_SAFE_NO_PAD.decode(csr).map_err(|error| error.to_string())?;
        let life = if matches!(fault, Some(BadCertificate::Expired)) { (-100, -10) } else { life };
        let other = ["other.example.org".to_owned()];
        let issued = match fault {
            Some(BadCertificate::NoCertificate) => return Ok("there is none\n".to_owned()),
            Some(BadCertificate::OtherNames) => self.issuer.sign_request(&csr, names, Some(&other), life)?,
            _ => self.issuer.sign_request(&csr, names, None, life)?,
        };
        let issued = match fault {
            Some(BadCertificate::OtherKey) => self.issuer.issue("other").certificate,
            _ => issued,
        };
        let root = match fault {
            Some(BadCertificate::BrokenChain) => TestIssuer::new("another CA").root(),
            _ => self.issuer.root(),
        };
        Ok(pem("CERTIFICATE", &issued) + &pem("CERTIFICATE", &root))
    }
}

/// Returns what looks random, in Base64 for URLs, as nonces and tokens must be (RFC 8555, sections 6.5.1 and 8.3).
fn random_text(what: &str, nth: u64) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(format!("{what} {nth}"))[..16])
}

fn status_of(state: &State, order: &KnownOrder) -> &'static str {
    let outcomes: Vec<_> = order.authorizations.iter().map(|&id| state.authorizations[id].outcome.as_ref()).collect();
    if order.chain.is_some() {
        "valid"
    } else if outcomes.iter().any(|outcome| matches!(outcome, Some(Err(_)))) {
        "invalid"
    } else if state.faults.holds_orders || outcomes.iter().any(Option::is_none) {
        "pending"
    } else {
        "ready"
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
