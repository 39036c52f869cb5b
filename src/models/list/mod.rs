//! Lists the models on this machine, as tables for people and for serde.
//!
//! - `inventory.rs`: the models of all places
//! - `last_used.rs`: when a model was last used
//! - `row.rs`: the models below one folder

mod inventory;
mod last_used;
mod row;

pub use inventory::{HeldModel, Inventory, inventory, inventory_table};
pub use last_used::{LAST_USED_FILE, LastUsed};
pub use row::{ListedModel, human_size, list, printable, table};
