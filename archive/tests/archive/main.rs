//! The archive on stores that fail: what is released is confirmed, what is restored is the log.

#![allow(missing_docs, reason = "a test")]

mod crashes;
mod damage;
mod faults;
mod histories;
mod live;
mod operators;
mod prune;
mod random;
mod ranges;
mod s3;
mod support;
