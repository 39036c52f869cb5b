//! `llamagate ps`, `top` and `logs`: what a service does now, asked over HTTP.
//!
//! - `args.rs`: their arguments
//! - `events.rs`: the events of the feed
//! - `full_screen.rs`: a terminal whose whole screen a command has
//! - `logs.rs`: `llamagate logs`
//! - `ps.rs`: `llamagate ps`
//! - `state.rs`: what the feed has told so far
//! - `table.rs`: the state as text
//! - `top.rs`: `llamagate top`
//! - `wrap.rs`: long lines, broken to fit a terminal

mod args;
mod events;
mod full_screen;
mod logs;
mod ps;
mod state;
mod table;
mod top;
mod wrap;

pub(super) use args::{LogsArgs, PsArgs, TopArgs};
pub(super) use logs::run as run_logs;
pub(super) use ps::run as run_ps;
pub(super) use top::run as run_top;
