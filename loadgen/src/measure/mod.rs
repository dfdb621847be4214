//! Figures of a measurement: latencies, counts over time, cost, conditions, and their comparison.

pub mod environment;
pub mod latency;
pub mod require;
pub mod series;
pub mod statistics;
pub mod usage;
