//! Behaviour through the real binary, in projects made for each test.

mod bad;
mod orphans;
mod project;
