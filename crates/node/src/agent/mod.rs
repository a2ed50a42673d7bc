//! The agent: watches the pods bound to its node and drives each to what its spec asks.
