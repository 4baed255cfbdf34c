//! Behaviour through the real binary, in projects made for each test.

mod authors;
mod bad;
mod doctor;
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
mod server;
