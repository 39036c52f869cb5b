//! Answers over HTTP that come in pages.

use serde_json::Value;

use crate::cli::client::{CallError, ServiceClient};

/// Rows that are asked for at a time.
const PAGE_ROWS: usize = 10_000;

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
