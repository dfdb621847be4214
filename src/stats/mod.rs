//! Counters, histograms, and operations in flight.

pub(crate) mod counters;
pub(crate) mod histogram;
pub(crate) mod in_flight;
