//! Behaviour through the real binary, in projects made for each test.

mod agents;
mod authors;
mod bad;
mod engine;
mod faults;
mod fingerprints;
mod kinds;
mod layers;
mod matrix;
mod mutations;
mod orphans;
mod pipelines;
mod project;
mod rows;
mod running;
mod served;
#[expect(dead_code, reason = "the unit tests use the rest")]
mod server;
