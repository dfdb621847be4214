//! Counters, histograms, and what the threads wait for.

pub(crate) mod counters;
pub(crate) mod histogram;
pub(crate) mod in_flight;
