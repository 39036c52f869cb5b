//! Finds the file of a served model and the settings of its llama-server, for clients that ask whether it fits.

use std::sync::Arc;

use crate::app::reload::reloader::Reloader;
use crate::gateway::{ServedFileLookup, ServedModelFile};

/// Returns what finds the file of the model that is served under a name.
pub(in crate::app) fn lookup(reloader: &Arc<Reloader>) -> ServedFileLookup {
    let reloader = Arc::clone(reloader);
    Box::new(move |name| {
        let reloader = Arc::clone(&reloader);
        Box::pin(async move {
            let (_, served) = reloader.served_files().await;
            let model = served.into_iter().find(|model| model.has_name(&name))?;
            Some(ServedModelFile { path: model.path?, engine: model.engine })
        })
    })
}
