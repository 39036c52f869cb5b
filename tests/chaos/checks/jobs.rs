//! What must hold of the jobs of RunPod's platform: each that was handed out is answered, and none more often than that.

use std::collections::BTreeSet;

use crate::support::runpod::Platform;

/// Checks that each result is one, and that no job has more results than it was handed out.
pub(crate) fn check_results(platform: &Platform) -> Result<(), String> {
    // The results first: a job is handed out before it has one.
    let results = platform.results();
    let handed_out = platform.handed_out();
    for (id, (times, result)) in &results {
        let given = handed_out.get(id).copied().unwrap_or(0);
        if *times > given {
            return Err(format!("{id} was handed out {given} times and answered {times} times: {result}"));
        }
        if !(result["error"].is_string() || result["output"].is_array() || result["output"].is_object()) {
            return Err(format!("the result of {id} is neither an output nor an error: {result}"));
        }
    }
    Ok(())
}

/// Returns a job that was handed out and has no result, unless it is one of those that were cancelled.
pub(crate) fn find_unanswered(platform: &Platform, cancelled: &BTreeSet<String>) -> Option<String> {
    let (handed_out, results) = (platform.handed_out(), platform.results());
    handed_out.into_keys().find(|id| !results.contains_key(id) && !cancelled.contains(id))
}
