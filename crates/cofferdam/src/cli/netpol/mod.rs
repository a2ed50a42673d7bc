//! `cofferdam netpol`: what network policies come to, of a cluster or of manifests without one.

pub(super) mod objects;
