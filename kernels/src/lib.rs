//! The loops that models are computed with on processors, apart from the crate that uses them: so they are built optimised
//! also where that one is built for tests.
//!
//! Every sum has one order, which depends on the numbers that are summed alone: not on how many rows there are, on threads, or
//! on the processor. Multiplications are fused into additions everywhere, and there are always sixteen lanes, whatever a
//! processor's registers hold. So the same input gives the same bits on all of them.

mod attention;
mod draw;
mod lanes;
mod matrix;
mod rows;
pub mod train;

pub use attention::{Heads, Keys, PAGE, Query, attend, keep};
pub use draw::{cut, largest, place, reaching, total, weigh};
pub use matrix::{Matrix, Packed, product};
pub use rows::{Activation, add, gate, norm, norm_here, rotate, scale};
