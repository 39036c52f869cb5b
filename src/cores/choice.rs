//! Which core serves the next connection: the one with the fewest that are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

/// The cores that serve a listener.
#[derive(Clone)]
pub struct Cores(Arc<[Core]>);

struct Core {
    runtime: Handle,
    /// Connections that are open.
    connections: AtomicUsize,
}

/// The core that serves one connection, which counts as open until this is dropped.
pub struct ServingCore {
    cores: Arc<[Core]>,
    number: usize,
}

impl Cores {
    /// Serves all connections on the runtime that this is called in.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, as everything does that needs one.
    pub fn of_this_runtime() -> Self {
        Self::new([Handle::current()])
    }

    /// Serves connections on these runtimes, of which there is at least one.
    pub(super) fn new(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        Self(runtimes.into_iter().map(|runtime| Core { runtime, connections: AtomicUsize::new(0) }).collect())
    }

    /// Returns the runtimes of all cores.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|core| &core.runtime)
    }

    /// Returns the core with the fewest open connections, and counts one more there.
    pub fn least_busy(&self) -> ServingCore {
        let open = |core: &Core| core.connections.load(Ordering::Relaxed);
        // Of several, `min_by_key` returns the first: few connections leave the other cores asleep.
        let least = self.0.iter().enumerate().min_by_key(|(_, core)| open(core));
        let number = least.map_or(0, |(number, _)| number);
        self.0[number].connections.fetch_add(1, Ordering::Relaxed);
        ServingCore { cores: Arc::clone(&self.0), number }
    }
}

impl ServingCore {
    /// Returns the runtime of the core.
    pub fn runtime(&self) -> &Handle {
        &self.cores[self.number].runtime
    }
}

impl Drop for ServingCore {
    fn drop(&mut self) {
        self.cores[self.number].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn open(cores: &Cores) -> Vec<usize> {
        cores.0.iter().map(|core| core.connections.load(Ordering::Relaxed)).collect()
    }

    proptest! {
        /// Connections come and go in any order; no core gets one while another has fewer.
        #[test]
        fn a_connection_goes_to_a_core_with_the_fewest(count in 1_usize..5, steps in prop::collection::vec(any::<Option<u8>>(), 0..100)) {
            let runtime: Runtime = Builder::new_current_thread().build().unwrap();
            let cores = Cores::new((0..count).map(|_| runtime.handle().clone()));
            let mut serving: Vec<ServingCore> = Vec::new();
            for step in steps {
                match step {
                    None => {
                        let before = open(&cores);
                        let core = cores.least_busy();
                        prop_assert_eq!(before[core.number], before.into_iter().min().unwrap());
                        serving.push(core);
                    }
                    Some(at) if !serving.is_empty() => drop(serving.swap_remove(usize::from(at) % serving.len())),
                    Some(_) => {}
                }
                prop_assert_eq!(open(&cores).into_iter().sum::<usize>(), serving.len());
            }
        }
    }
}
