//! Connects each core to the store.

use std::io;
use std::sync::Arc;

use super::keeper;
use super::store::LimitsStore;
use crate::cores::Cores;
use crate::dial::Trust;
use crate::settings::options::Access;
use crate::telemetry::metrics::Metrics;

/// Connects each of these cores, in the background, for as long as the store is open; `None` without `LIMITS_STORE`. A server
/// that cannot be reached, or refuses the password, is reported and tried again.
///
/// # Errors
/// There is no randomness for the name of this run, or the certificates of this machine cannot be used.
pub fn connect(access: &Access, cores: &Cores, metrics: &Arc<Metrics>) -> io::Result<Option<Arc<LimitsStore>>> {
    let Some(store) = LimitsStore::new(access, cores.runtimes().count(), metrics)?.map(Arc::new) else {
        return Ok(None);
    };
    if store.address.is_tls {
        // Reads the disk, which no core may do later.
        Trust::Machine.config().map_err(io::Error::other)?;
    }
    for runtime in cores.runtimes() {
        let store_of_core = Arc::clone(&store);
        let keeping = async move {
            let link = store_of_core.link();
            keeper::keep(store_of_core, link).await;
        };
        store.tasks.spawn_on(keeping, runtime);
    }
    Ok(Some(store))
}
