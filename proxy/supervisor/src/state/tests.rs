//! What the state machine must hold under any sequence of inputs.
