//! What the state machine must do, transition by transition, and what must hold under any sequence of inputs.

mod any_sequence;
mod canary;
mod deploys;
mod failures;
mod generations;
mod hang;
mod life;
mod memory;
mod notices;
mod operator;
mod preparation;
mod recycle;
mod replacement;
mod restart;
mod world;
