//! Whether a service is asked, and its answers, which come in pages.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::client::{CallError, RemoteArgs, ServiceAddress, ServiceClient};
use crate::cli::inputs::{Flags, PLACE_FLAGS};
use crate::settings::Environment;

/// Rows that are asked for at a time.
const PAGE_ROWS: usize = 10_000;

/// What answers a question.
pub(super) enum UsageSource {
    /// A service, over HTTP.
    Service(ServiceClient),
    /// The file that these flags and variables name.
    File(BTreeMap<&'static str, String>, Environment),
}

/// Returns a service, if the arguments or the environment name one, and else the file.
///
/// # Errors
/// [`CallError`] as for [`ServiceAddress::find`], and for a flag that has an effect on the file only.
pub(super) fn source_of(remote: &RemoteArgs, flags: Flags, environment: Environment) -> Result<UsageSource, CallError> {
    if !ServiceAddress::is_named(remote, &environment) {
        return Ok(UsageSource::File(flags.0, environment));
    }
    if let Some(key) = flags.0.keys().find(|key| !PLACE_FLAGS.contains(key)) {
        let flag = key.replace('_', "-");
        return Err(CallError::Usage(format!("--{flag} has no effect on a service that is asked over HTTP")));
    }
    ServiceClient::new(ServiceAddress::find(remote, flags.0, environment)?).map(UsageSource::Service)
}

/// Reads the rows of all pages, `most` of them. Also returns whether there are more.
///
/// # Errors
/// [`CallError`] if a page cannot be read.
pub(super) async fn read_rows(
    client: &ServiceClient,
    path: &str,
    parameters: &[(&str, String)],
    most: usize,
) -> Result<(Vec<Value>, bool), CallError> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &PAGE_ROWS.min(most - rows.len()).to_string());
        for (name, value) in parameters {
            query.append_pair(name, value);
        }
        if let Some(after) = after {
            query.append_pair("after", &u64::to_string(&after));
        }
        let page = client.get_json(&format!("{path}?{}", query.finish())).await?;
        let Some(data) = page["data"].as_array() else {
            return Err(CallError::Broken("the answer has no rows: is this the address of a llamagate?".to_owned()));
        };
        rows.extend(data.iter().cloned());
        let next = page["next"].as_u64();
        if next.is_none() || next == after || rows.len() >= most {
            return Ok((rows, next.is_some()));
        }
        after = next;
    }
}
