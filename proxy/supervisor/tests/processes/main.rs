//! The supervisor with real processes: each test has a supervising process of its own.

mod bed;
mod deploy;
mod failure;
mod hang;
mod launch;
mod life;
mod output;
mod pre_start;
mod readiness;
mod recycle;
mod survivors;
