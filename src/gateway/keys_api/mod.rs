//! Keys over HTTP: what `keyctl` does, on the same file under the same lock.
//!
//! Owns what clients are told of it, and how many secrets may be made in a minute. A secret is in the one answer that
//! makes it, and nowhere else.
//!
//! - `edits.rs`: edits of the file, in force before the answer
//! - `listing.rs`: keys as the API shows them
//! - `order.rs`: what requests say

mod edits;
mod listing;
mod order;

pub(super) use order::name_in;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use governor::Quota;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::admission::auth::Caller;
use super::admission::budget::accounts::KeyAccounts;
use super::bounds::NEW_SECRETS_PER_MINUTE;
use super::routes::route::KeysRoute;
use crate::fleet::KeySuspensions;
use crate::keys::edit::{self, EditError, Rotation};
use crate::keys::secret::NewSecret;
use crate::keys::{Key, Store};
use crate::rate_bucket::{Bucket, Wait};
use crate::refusal::Refusal;
use edits::{KeyEditError, KeyEdits, check_keeps_admin};
use listing::Standing;

/// A request about keys.
pub(super) struct KeysRequest<'a> {
    pub(super) route: KeysRoute,
    /// The name of the key in the path, or an empty text.
    pub(super) id: &'a str,
    pub(super) query: Option<&'a str>,
    /// Its body; empty if the route has none.
    pub(super) body: &'a [u8],
    pub(super) caller: &'a Caller,
    pub(super) accounts: &'a KeyAccounts,
}

/// Answers requests about keys.
pub(super) struct KeysApi {
    /// `None` with `AUTH_ENABLED=false`.
    edits: Option<KeyEdits>,
    suspensions: Arc<KeySuspensions>,
    new_secrets: Arc<NewSecrets>,
}

/// Counts the secrets that are made.
struct NewSecrets {
    bucket: Bucket,
    start: Instant,
}

impl KeysApi {
    /// Creates the API of these keys, which are `None` where requests need no key.
    pub(super) fn new(keys: Option<Store>, suspensions: Arc<KeySuspensions>) -> Self {
        let new_secrets = NewSecrets { bucket: Bucket::default(), start: Instant::now() };
        Self { edits: keys.map(KeyEdits::new), suspensions, new_secrets: Arc::new(new_secrets) }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// A refusal if the request is not right, or if what it asks for cannot be done.
    pub(super) async fn respond(&self, request: KeysRequest<'_>) -> Result<Response<Bytes>, Refusal> {
        let edits = self.edits.as_ref().ok_or(Refusal::KeysOff)?;
        let now = Timestamp::now();
        let KeysRequest { id, body, .. } = request;
        if request.route == KeysRoute::List {
            let after = order::read_after(request.query)?;
            let page = listing::list(edits.store().keys(), &after, &self.standing(edits, &request, now));
            return Ok(json_response(StatusCode::OK, &page));
        }
        let is_forced = match request.route {
            KeysRoute::Change | KeysRoute::Remove => order::read_force(request.query)?,
            KeysRoute::List | KeysRoute::Create | KeysRoute::Rotate => {
                order::check_no_parameters(request.query)?;
                false
            }
        };
        match request.route {
            KeysRoute::List => Err(Refusal::RouteNotFound),
            KeysRoute::Create => {
                let key = order::read_new_key(body, now)?;
                self.create(edits, key, &request, now).await
            }
            KeysRoute::Rotate => self.rotate(edits, &request, now).await,
            KeysRoute::Change => {
                let change = order::read_key_change(body, now)?;
                edits.check_in_file(id)?;
                let own = own_key(&request, is_forced);
                let name = id.to_owned();
                edits
                    .edit(move |file| {
                        edit::change(file, &name, &change)?;
                        own.map_or(Ok(()), |own| check_keeps_admin(file, &own, now))
                    })
                    .await?;
                Ok(json_response(StatusCode::OK, &self.describe(edits, id, &request, now).into()))
            }
            KeysRoute::Remove => {
                edits.check_in_file(id)?;
                let own = own_key(&request, is_forced);
                let name = id.to_owned();
                edits
                    .edit(move |file| {
                        edit::remove(file, &name)?;
                        own.map_or(Ok(()), |own| check_keeps_admin(file, &own, now))
                    })
                    .await?;
                Ok(json_response(StatusCode::OK, &json!({"object": "key", "id": id, "deleted": true})))
            }
        }
    }

    async fn create(
        &self,
        edits: &KeyEdits,
        key: Key,
        request: &KeysRequest<'_>,
        now: Timestamp,
    ) -> Result<Response<Bytes>, Refusal> {
        let name = key.id.clone();
        if edits.check_in_file(&name).is_err() {
            return Err(Refusal::KeyExists(name));
        }
        let secret = new_secret()?;
        let (stored, new_secrets) = (secret.stored(false), Arc::clone(&self.new_secrets));
        edits
            .edit(move |file| {
                edit::add(file, key, stored, now)?;
                new_secrets.take()
            })
            .await?;
        let mut members = self.describe(edits, &name, request, now);
        members.insert("secret".to_owned(), json!(secret.reveal()));
        let mut response = json_response(StatusCode::CREATED, &members.into());
        if let Ok(location) = HeaderValue::try_from(format!("/keys/{name}")) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn rotate(
        &self,
        edits: &KeyEdits,
        request: &KeysRequest<'_>,
        now: Timestamp,
    ) -> Result<Response<Bytes>, Refusal> {
        let order = order::read_rotation(request.body, now)?;
        edits.check_in_file(request.id)?;
        let secret = new_secret()?;
        let rotation = Rotation { secret: secret.stored(false), old_ends: order.old_ends, expires: order.expires };
        let (name, new_secrets) = (request.id.to_owned(), Arc::clone(&self.new_secrets));
        edits
            .edit(move |file| {
                edit::rotate(file, &name, rotation, now)?;
                new_secrets.take()
            })
            .await?;
        let mut members = self.describe(edits, request.id, request, now);
        let old_ends = (order.old_ends > now).then(|| order.old_ends.to_string());
        members.insert("secret".to_owned(), json!(secret.reveal()));
        members.insert("old_secret_expires".to_owned(), json!(old_ends));
        Ok(json_response(StatusCode::OK, &members.into()))
    }

    /// Returns what is shown of the key with this name.
    fn describe(&self, edits: &KeyEdits, id: &str, request: &KeysRequest<'_>, now: Timestamp) -> Map<String, Value> {
        let mut secrets = edits.store().keys();
        secrets.retain(|key| key.id == id);
        // Another edit may have removed it meanwhile.
        let gone = || Map::from_iter([("id".to_owned(), json!(id)), ("name".to_owned(), json!(id))]);
        listing::describe(&secrets, &self.standing(edits, request, now)).unwrap_or_else(gone)
    }

    fn standing<'a>(&self, edits: &KeyEdits, request: &'a KeysRequest<'_>, now: Timestamp) -> Standing<'a> {
        Standing {
            now,
            has_service_key: edits.store().has_service_key(),
            suspended: self.suspensions.suspended().into_iter().collect(),
            accounts: request.accounts,
        }
    }
}

impl NewSecrets {
    const QUOTA: Quota = Quota::per_minute(NEW_SECRETS_PER_MINUTE);

    /// Counts one more secret. Called in the turn of an edit that is right, just before it is written.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] with the time until one may be made.
    fn take(&self) -> Result<(), KeyEditError> {
        let taken = self.bucket.take(Self::QUOTA, self.now());
        let refused = |wait: Wait| Refusal::RateLimited("new secrets of API keys", wait.time);
        taken.map(drop).map_err(|wait| KeyEditError::Refused(refused(wait)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Returns the name of the caller's key, if the caller must not lose it. Another change may be about to take it while this
/// one takes that one's, so it is looked at whichever key changes.
/// Returns how many of the orders about keys this body may be, for fuzzing.
#[cfg(feature = "test-support")]
pub(super) fn orders_in(body: &[u8], now: Timestamp) -> usize {
    let orders = [
        order::read_new_key(body, now).is_ok(),
        order::read_key_change(body, now).is_ok(),
        order::read_rotation(body, now).is_ok(),
    ];
    orders.into_iter().filter(|is_order| *is_order).count()
}

fn own_key(request: &KeysRequest<'_>, is_forced: bool) -> Option<String> {
    request.caller.key_id().filter(|_| !is_forced).map(str::to_owned)
}

fn new_secret() -> Result<NewSecret, Refusal> {
    NewSecret::generate().map_err(|error| Refusal::Internal(EditError::from(error).to_string()))
}

/// Returns an answer that nothing on its way may keep.
fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
