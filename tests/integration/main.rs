//! The integration tests: one file per subject. What they need is built first: `cargo build -p tidegate -p upstream-demo`.
