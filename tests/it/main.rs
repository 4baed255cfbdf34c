//! Behaviour through the real binary, in projects made for each test.

mod agents;
mod authors;
mod bad;
mod book;
mod browser;
mod chat;
mod compare;
mod compat;
mod doctor;
mod engine;
mod export;
mod faults;
mod fingerprints;
#[path = "../../src/golden.rs"]
#[expect(dead_code, reason = "the unit tests use the rest")]
mod golden;
mod harvest;
mod instructions;
mod kinds;
mod layers;
mod matrix;
mod models;
mod mutations;
mod orphans;
mod page;
mod pipelines;
mod policies;
mod project;
mod query;
mod replay;
mod report;
mod results;
mod rows;
mod running;
mod serve;
mod served;
mod server;
mod training;
mod trials;
mod view;
mod ways;

// For `golden`, which is the library's own.
use thresh::fs;
