//! The table of routes, and what is read from it. Owns which paths there are; the spellings of a path are in
//! `../route_path.rs`.
//!
//! - `lookup.rs`: finds the route of a request
//! - `parameters.rs`: which values the members of requests may have
//! - `parameters_reference.rs`: the page of parameters
//! - `reference.rs`: the page of routes
//! - `route.rs`: what a route is
//! - `table.rs`: the table of routes

pub(super) mod lookup;
pub(super) mod parameters;
pub(super) mod parameters_reference;
pub(super) mod reference;
pub(super) mod route;
pub(super) mod table;
